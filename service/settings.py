"""All settings of the service, from `UNVEIL_*` and from flags, validated once and frozen."""

import os
import re
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from unveil.engine.request.limits import Limits
from unveil.model.errors import UnveilError

PREFIX = "UNVEIL_"
_BUNDLED = Path(__file__).resolve().parent.parent / "checkpoints"
# What Kubernetes and Docker links put into the environment of a pod that lives beside a Service named `unveil`.
_SERVICE_LINK = re.compile(r"UNVEIL_(SERVICE_(HOST|PORT)|PORT_\d+_|PORT$)")


class Settings(BaseSettings):
    """All settings of `unveil serve`. A flag beats the environment, the environment beats the default.

    Lengths of time are in seconds, sizes in bytes. A canvas is one sample of one prompt.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    artifacts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Folders, or NAME=FOLDER; none = the bundled ones. In the environment: commas between."
    )
    checkpoints: Path = Field(default=_BUNDLED, description="Where the bundled artifacts are.")

    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    cuda_graphs: bool = Field(default=True, description="Steps on CUDA are recorded once a shape, and replayed.")
    threads: int = Field(default=1, ge=1, description="Of the engine. Its idle ones compete with the event loop.")
    max_batch: int = Field(default=64, ge=1, le=4096, description="Canvases in one denoising step.")

    cache_bytes: int = Field(
        default=2**30,
        ge=1,
        description="Of each model that goes along its order: what canvases may keep.",
    )

    queue_capacity: int = Field(default=1024, ge=1, description="Canvases admitted at once, running ones included.")
    max_num_samples: int = Field(default=256, ge=1)
    max_num_orders: int = Field(default=256, ge=1, description="Drawn orders of one prompt in a score.")
    max_prompts: int = Field(default=256, ge=1)
    max_body_bytes: int = Field(default=2**20, ge=1)
    default_timeout_seconds: float = Field(
        default=60.0, gt=0, description="A request's deadline if it names none, and the time its body may take to come."
    )
    max_timeout_seconds: float = Field(default=600.0, gt=0)

    stream_buffer_events: int = Field(default=4096, ge=1, description="Reveals a slow reader may lag behind.")
    stream_write_timeout_seconds: float = Field(default=30.0, gt=0, description="Reading nothing for so long: cut off.")
    keep_alive_seconds: float = Field(default=15.0, gt=0, description="Between comment lines on an idle stream.")
    idle_connection_seconds: int = Field(
        default=75, ge=1, description="A connection that sends nothing, or not the end of a head, for so long: closed."
    )

    drain_timeout_seconds: float = Field(default=30.0, ge=0, description="For running requests to finish on SIGTERM.")
    worker_timeout_seconds: float = Field(default=60.0, gt=0, description="Without a sign of life: not live.")

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @property
    def limits(self) -> Limits:
        """Those of one request."""
        return Limits(**{field.name: getattr(self, field.name) for field in fields(Limits)})

    @field_validator("artifacts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return tuple(map(str, value)) if isinstance(value, list | tuple) else value

    @model_validator(mode="before")
    @classmethod
    def _without_service_links(cls, values: Any) -> Any:
        if isinstance(values, dict) and str(values.get("port", "")).startswith("tcp://"):
            return {key: value for key, value in values.items() if key != "port"}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.default_timeout_seconds > self.max_timeout_seconds:
            raise ValueError("default_timeout_seconds is longer than max_timeout_seconds")
        return self


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings of this process; flags that are None do not count. Raises UnveilError."""
    _refuse_misspelt(os.environ)
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = ".".join(map(str, first["loc"][:1]))
        message = first["msg"].removeprefix("Value error, ")
        raise UnveilError(f"setting {name} ({PREFIX}{name.upper()}): {message}" if name else message) from None


def _refuse_misspelt(environment: Mapping[str, str]) -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name in sorted(environment):
        if not name.startswith(PREFIX) or name in known or _SERVICE_LINK.match(name):
            continue
        if close := get_close_matches(name, known, n=1, cutoff=0.85):
            raise UnveilError(f"unknown setting {name}; did you mean {close[0]}?")
