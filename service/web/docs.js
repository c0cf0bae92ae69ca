// Shows /openapi.json. Nothing is fetched from anywhere else, so it also works without a network.
"use strict";

function put(parent, tag, text) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(", ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${typeOf(schema.items ?? {})}`;
  const bounds = [["minimum", "≥"], ["exclusiveMinimum", ">"], ["maximum", "≤"], ["exclusiveMaximum", "<"]]
    .filter(([key]) => schema[key] !== undefined).map(([key, sign]) => `${sign} ${schema[key]}`);
  return [schema.type ?? "anything", ...bounds].join(" ");
}

function table(parent, head, rows) {
  const element = put(parent, "table");
  const titles = put(put(element, "thead"), "tr");
  for (const title of head) put(titles, "th", title).scope = "col";
  const body = put(element, "tbody");
  for (const cells of rows) {
    const row = put(body, "tr");
    for (const cell of cells) put(row, "td", cell);
  }
}

function showSchema(parent, name, schemas) {
  const schema = schemas[name];
  put(parent, "h3", name);
  if (schema.description) put(parent, "p", schema.description);
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([field, property]) => {
    const standard = required.has(field) ? "required" : JSON.stringify(property.default) ?? "";
    return [field, typeOf(property), standard, property.description ?? ""];
  });
  table(parent, ["Field", "Type", "Default", ""], rows);
}

function showOperation(parent, method, path, operation, schemas) {
  const section = put(parent, "section");
  put(section, "h2", `${method.toUpperCase()} ${path}`);
  put(section, "p", operation.description ?? operation.summary);
  const content = operation.requestBody?.content["application/json"];
  if (content) {
    const data = JSON.stringify(schemas[typeOf(content.schema)].example);
    put(section, "pre", `curl -s ${location.origin}${path} -H 'content-type: application/json' -d '${data}'`);
    showSchema(section, typeOf(content.schema), schemas);
  }
  const replies = Object.entries(operation.responses).map(([code, response]) => {
    const schema = response.content?.["application/json"]?.schema;
    return [code, schema ? typeOf(schema) : "", response.description];
  });
  put(section, "h3", "Replies");
  table(section, ["Code", "Body", ""], replies);
}

async function main() {
  const place = document.getElementById("operations");
  const document_ = await (await fetch("/openapi.json")).json();
  const { schemas } = document_.components;
  for (const [path, operations] of Object.entries(document_.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      showOperation(place, method, path, operation, schemas);
    }
  }
  put(place, "h2", "Bodies");
  for (const name of Object.keys(schemas)) if (!name.endsWith("Request")) showSchema(place, name, schemas);
  place.removeAttribute("aria-busy");
}

main();
