// Posts a prompt and shows its reveals as they stream in. Everything shown is set as text, never as markup.
"use strict";

const $ = (id) => document.getElementById(id);
let models = [];
let abort = null;
let seed = "";

function put(tag, text, className) {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

function show(error) {
  const { message, param } = error;
  $("error").textContent = param ? `${param}: ${message}` : message;
}

async function loadModels() {
  try {
    const reply = await fetch("/v1/models");
    const body = await reply.json();
    if (!reply.ok) throw new Error(body.error.message);
    models = body.data;
  } catch (failure) {
    $("status").textContent = `${failure.message}; trying again`;
    setTimeout(loadModels, 1000);
    return;
  }
  $("status").textContent = "";
  $("model").replaceChildren(...models.map((model) => put("option", model.id)));
  pickModel();
  for (const id of ["model", "prompt", "run"]) $(id).disabled = false; // what needs a model waits for one
}

function pickModel() {
  const model = models.find((candidate) => candidate.id === $("model").value);
  const isTable = model.domain === "table";
  $("prompt").value = isTable ? JSON.stringify(model.example_prompt) : model.example_prompt;
  $("hint").textContent = isTable
    ? `An object of columns; what is absent or null is generated. Columns: ${model.columns.map((c) => c.name).join(", ")}.`
    : model.domain === "grid"
      ? "A sudoku, row by row; . or 0 is a hidden cell."
      : "A text; [MASK] hides one token, [MASK:12] twelve.";
  $("canvas").classList.toggle("grid", model.domain === "grid");
  $("search").hidden = model.domain !== "grid";
}

function readRequest() {
  const model = models.find((candidate) => candidate.id === $("model").value);
  const text = $("prompt").value;
  const prompt = model.domain === "table" ? JSON.parse(text || "{}") : text;
  const request = { model: model.id, prompt, order: $("order").value, stream: true };
  const backtrack = $("search").hidden ? "" : $("backtrack").value.trim();
  if (backtrack && !/^[0-9]+$/.test(backtrack)) throw new Error("backtrack is a whole number");
  if (backtrack) request.backtrack = Number(backtrack);
  const body = JSON.stringify(request);
  seed = $("seed").value.trim();
  if (!seed) return body;
  if (!/^[0-9]+$/.test(seed)) throw new Error("the seed is a whole number");
  return `${body.slice(0, -1)},"seed":${BigInt(seed)}}`; // as digits: a JavaScript number would round it
}

function start(data) {
  const sample = data.samples[0];
  const hidden = new Set(sample.hidden);
  const items = sample.canvas.map((value, position) => {
    const item = document.createElement("li");
    if (data.names) item.append(put("span", data.names[position]));
    item.append(put("b", hidden.has(position) ? "?" : String(value)));
    item.className = hidden.has(position) ? "hidden" : "known";
    return item;
  });
  $("canvas").replaceChildren(...items);
}

function reveal(data) {
  const item = $("canvas").children[data.position];
  const value = data.value === null ? "(missing)" : String(data.value);
  item.lastChild.textContent = value;
  item.className = "new";
  const row = document.createElement("tr");
  const cells = [data.step, data.name ?? data.position, value, Math.exp(data.logprob).toFixed(3)];
  row.append(...cells.map((cell) => put("td", String(cell))));
  $("reveals").append(row);
}

function unreveal(data) {
  for (const position of data.positions) {
    const item = $("canvas").children[position];
    item.lastChild.textContent = "?";
    item.className = "hidden";
    $("reveals").lastChild.remove(); // what is taken back was revealed last
  }
}

const ended = {
  complete: "Complete.",
  budget: "Complete, but wrong: no forwards are left to backtrack.",
  contradiction: "Complete, but wrong: no alternative is left.",
};

const handlers = {
  start,
  reveal,
  unreveal,
  sample: (data) => {
    const back = data.num_unrevealed ? ` ${data.num_unrevealed} reveals taken back.` : "";
    $("status").textContent = `${ended[data.finish_reason]} Seed ${seed || data.seed}; log-probability ${data.logprob.toFixed(3)}.${back}`;
  },
  done: (data) => { $("status").textContent += ` ${data.usage.denoising_steps} steps in ${(data.timings.total_seconds * 1000).toFixed(1)} ms.`; },
  error: (data) => show(data.error),
};

async function readEvents(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const match = /^event: (\w+)\ndata: (.*)$/.exec(block);
      if (match) handlers[match[1]](JSON.parse(match[2]));
    }
  }
}

async function run(event) {
  event.preventDefault();
  for (const id of ["error", "status"]) $(id).textContent = "";
  $("canvas").replaceChildren();
  $("reveals").replaceChildren();
  abort = new AbortController();
  $("run").disabled = true;
  $("stop").disabled = false;
  try {
    const headers = { "content-type": "application/json" };
    const reply = await fetch("/generate", { method: "POST", headers, body: readRequest(), signal: abort.signal });
    if (reply.ok) await readEvents(reply);
    else show((await reply.json()).error);
  } catch (failure) {
    if (failure.name === "AbortError") $("status").textContent = "Stopped.";
    else show({ message: failure.message });
  } finally {
    $("run").disabled = false;
    $("stop").disabled = true;
  }
}

$("model").addEventListener("change", pickModel);
$("form").addEventListener("submit", run);
$("stop").addEventListener("click", () => abort.abort());
loadModels();
