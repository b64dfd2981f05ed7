"""The lab's settings: ``proverom.toml``, each overridable as ``PROVEROM_<SECTION>__<NAME>``.

The only place that reads the environment.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

PROJECT = Path(__file__).resolve().parent.parent
PREFIX = "PROVEROM_"
# Names that start like ours and are no settings: the client, the runner and the tests read them.
OTHER_VARIABLES = frozenset(
    {
        "PROVEROM_CONFIG",
        "PROVEROM_AGENCY",
        "PROVEROM_URL",
        "PROVEROM_TOKEN",
        "PROVEROM_RUNNER_URL",
        "PROVEROM_RUN_TOKEN",
        "PROVEROM_TEST_REQUIRE",
    }
)
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class SettingsError(Exception):
    """One or more settings are unknown or wrong; the message names each, its value and what is allowed."""


def _seconds(value: object) -> object:
    """Return "30m" as 1800; leave whatever is not such a text to pydantic."""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d+)\s*([smhd])?\s*", value)):
        return int(found[1]) * _UNITS[found[2] or "s"]
    if isinstance(value, str):
        raise ValueError('give a number of seconds, or a number with s, m, h or d ("90s", "30m")')  # noqa: TRY004
    return value


def _http_url(value: str) -> str:
    if not value:
        return value
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("give an address like https://lab.example.no")
    return value.rstrip("/")


Seconds = Annotated[int, BeforeValidator(_seconds), Field(gt=0)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, hide_input_in_errors=False)


class LabSettings(_Section):
    name: str = Field(
        "lab",
        pattern=r"^[a-z0-9]{1,12}$",
        description="The lab's name, 1 to 12 lowercase letters and digits. It is part of the name of every container, "
        "network and volume, so two labs on one machine need two names.",
    )
    state: Path = Field(
        Path(".lab"),
        description="The folder of everything the lab keeps on this machine: catalog, files, secrets, log. "
        "A relative path starts at the project's folder.",
    )
    language: Literal["nb", "nn", "en"] = Field("nb", description="The pages' language for whoever has not chosen one.")
    demo: bool = Field(
        True,
        description="Seed a demonstration lab: four agencies and the logins `team`, `coordinator`, `leader` and "
        '`admin`. Only with `login.kind = "demo"`.',
    )


class HubSettings(_Section):
    port: int = Field(
        8000,
        ge=1024,
        le=60000,
        description="The port of the lab's web address. The `local` engine also takes the ports 81, 99 and 2101 "
        "above it, on loopback.",
    )
    address: str = Field(
        "127.0.0.1",
        pattern=r"^[0-9a-fA-F.:]+$",
        description="The machine's address on which the web address answers. Put a TLS proxy in front before you "
        "open it beyond this machine. The `local` engine answers on 127.0.0.1 only.",
    )
    public_url: HttpUrl = Field(
        "",
        description="The address people type, where a proxy in front of the lab gives it another: `https://lab.example.no`.",
    )
    subdomain_host: HttpUrl = Field(
        "",
        description="Give each person's desks a subdomain of this address, which keeps people's pages apart from each "
        "other. Needs a wildcard DNS name.",
    )
    desk_idle_minutes: int = Field(
        60, ge=1, le=10080, description="A desk nobody has used for so long is stopped. Its files stay."
    )
    session_days: float = Field(1, gt=0, le=14, description="How long a sign-in lasts.")
    token_days: int = Field(90, ge=1, le=365, description="The longest life of an API token that a person makes.")


class EngineSettings(_Section):
    kind: Literal["auto", "docker", "local"] = Field(
        "auto",
        description="`docker`: a Docker Engine on this machine. `local`: bubblewrap sandboxes, for trying out. `auto`: "
        "docker where an engine answers, otherwise local.",
    )
    docker_host: str = Field(
        "",
        pattern=r"^(unix:///\S+)?$",
        description="The Docker Engine's socket: `unix:///path`. Empty: what DOCKER_HOST names, otherwise "
        "`unix:///var/run/docker.sock`.",
    )
    base_image: str = Field(
        "",
        max_length=300,
        description="The Debian 12 image with Python 3.11 that the lab's images start from. Empty: "
        "python:3.11-slim-bookworm if it is there or can be pulled, otherwise a base made with debootstrap.",
    )
    ca_bundle: str = Field(
        "",
        description="A file of PEM certificates that image builds trust, for networks that inspect TLS. Empty: what "
        "SSL_CERT_FILE, REQUESTS_CA_BUNDLE or PIP_CERT names.",
    )


class DeskSettings(_Section):
    memory: ByteSize = Field(ByteSize(2 * 1024**3), ge=256 * 1024**2, description="A desk's memory.")
    cpus: float = Field(1.0, gt=0, le=256, description="A desk's share of the machine, in cores.")
    pids: int = Field(512, ge=64, le=32768, description="How many processes and threads a desk may have.")


class RunSettings(_Section):
    memory: ByteSize = Field(ByteSize(2 * 1024**3), ge=256 * 1024**2, description="A run's memory.")
    cpus: float = Field(1.0, gt=0, le=256, description="A run's share of the machine, in cores.")
    pids: int = Field(256, ge=32, le=32768, description="How many processes and threads a run may have.")
    concurrent: int = Field(
        0,
        ge=0,
        le=1000,
        description="How many runs of all agencies together run at once, runners that wait for one included. Each "
        "agency has its own limit too. 0: two for each core of this machine, 4 at least.",
    )
    warm_per_agency: int = Field(
        1,
        ge=0,
        le=100,
        description="How many runners wait, ready, for an agency that has just been active, so that its next run or "
        "series starts at once. Each takes one place of `runs.concurrent`. 0: none.",
    )
    warm_for_minutes: int = Field(
        15, ge=1, le=10080, description="How long after an agency's last run its runners are kept ready."
    )
    sweep_slots: int = Field(
        0,
        ge=0,
        le=8,
        description="How many runs of one series a runner carries out at a time; each takes one place of "
        "`runs.concurrent`. 0: two for each core of this machine, 8 at most.",
    )
    sweep_batch: int = Field(
        200, ge=2, le=10000, description="How many runs of one series a runner carries out before it is thrown away."
    )
    default_timeout: Seconds = Field(1800, description="How long a run may take where its template says nothing.")
    max_timeout: Seconds = Field(86400, le=7 * 86400, description="The longest time limit anybody can ask for.")
    max_attempts: int = Field(3, ge=1, le=10, description="How often a run is tried again after its runner was lost.")
    lease: Seconds = Field(15, ge=5, le=300, description="A runner silent for so long is taken for lost.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.default_timeout > self.max_timeout:
            raise ValueError(
                f"default_timeout={self.default_timeout}s is above max_timeout={self.max_timeout}s. "
                "Lower the first or raise the second."
            )
        return self


class CatalogSettings(_Section):
    database_url: str = Field(
        "",
        description="Where the catalog lives, as an SQLAlchemy URL: `postgresql+psycopg://user:password@host/name`. "
        "Empty: SQLite in `lab.state`.",
    )
    blob_url: str = Field(
        "",
        description="Where notebooks and figures live: a folder or `s3://bucket/path`. Empty: a folder in `lab.state`.",
    )
    max_upload: ByteSize = Field(
        ByteSize(32 * 1024**2), ge=1024**2, le=1024**3, description="The largest request the catalog takes."
    )


class MailSettings(_Section):
    host: str = Field("", max_length=253, description="The SMTP server for notices. Empty: no e-mail is sent.")
    port: int = Field(587, ge=1, le=65535, description="Its port.")
    starttls: bool = Field(
        True,
        description="Speak TLS with it, and check its certificate. Off only for a server on this machine or a "
        "protected network.",
    )
    user: str = Field("", max_length=200, description="The user name to sign in with. Empty: no sign-in.")
    password: SecretStr = Field(SecretStr(""), description="The password to sign in with.")
    sender: str = Field(
        "",
        pattern=r"^([^@\s<>]+@[^@\s<>]+)?$",
        description="The address that notices come from: `lab@example.no`. Needed with `host`.",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.host and not self.sender:
            raise ValueError(f"host={self.host} also needs sender, the address that notices come from. Set it.")
        return self


class LoginSettings(_Section):
    kind: Literal["demo", "oidc"] = Field(
        "demo",
        description="`demo`: passwords made for this lab. `oidc`: Ansattporten, Entra ID, Feide or any other OpenID "
        "Connect provider.",
    )
    service_name: str = Field("Ansattporten", max_length=60, description="What the sign-in button calls the provider.")
    issuer: HttpUrl = Field("", description="The provider's issuer address. Needed for `oidc`.")
    authorize_url: HttpUrl = Field("", description="The provider's authorization endpoint. Needed for `oidc`.")
    token_url: HttpUrl = Field("", description="The provider's token endpoint. Needed for `oidc`.")
    client_id: str = Field("", description="The lab's client id at the provider. Needed for `oidc`.")
    client_secret: SecretStr = Field(
        SecretStr(""), description="The lab's client secret at the provider. Needed for `oidc`."
    )
    scope: str = Field("openid profile", description="The scopes asked for, with spaces between.")
    username_claim: str = Field(
        "sub",
        pattern=r"^[A-Za-z_]{1,60}$",
        description="The claim that names a person. Never `pid`: a national identity number is no user name.",
    )
    resource: str = Field(
        "",
        max_length=300,
        description="Ansattporten: the Altinn resource whose representation right the organisation chooser asks for "
        "(sent as `authorization_details`). Empty: no organisation is asked for.",
    )
    join: bool = Field(
        False,
        description="Make whoever signs in on behalf of one of the lab's agencies a member of it. Off: coordinators "
        "add members.",
    )

    @model_validator(mode="after")
    def _no_identity_numbers(self) -> Self:
        if self.username_claim == "pid":
            raise ValueError(
                "username_claim=pid is a national identity number, which is no user name. Use sub or email."
            )
        return self

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "oidc":
            missing = [n for n in ("issuer", "authorize_url", "token_url", "client_id") if not getattr(self, n)]
            missing += [] if self.client_secret.get_secret_value() else ["client_secret"]
            if missing:
                raise ValueError(f'kind="oidc" also needs {", ".join(missing)}. Set them, or use kind="demo".')
        return self


class Settings(BaseSettings):
    """Everything that can be set, checked. Sizes are in bytes, durations in seconds."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, env_prefix=PREFIX, env_nested_delimiter="__")

    lab: LabSettings = LabSettings()
    hub: HubSettings = HubSettings()
    engine: EngineSettings = EngineSettings()
    desk: DeskSettings = DeskSettings()
    runs: RunSettings = RunSettings()
    catalog: CatalogSettings = CatalogSettings()
    login: LoginSettings = LoginSettings()
    mail: MailSettings = MailSettings()

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.engine.kind == "local" and self.hub.address not in ("127.0.0.1", "localhost"):
            raise ValueError(
                f"hub.address={self.hub.address} does not go with engine.kind=local, which is for trying out and "
                "answers on 127.0.0.1 only. Set hub.address to 127.0.0.1, or use engine.kind=docker."
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (pydantic-settings passes all of them)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes before the file, which arrives as the arguments."""
        return env_settings or EnvSettingsSource(settings_cls), init_settings

    @property
    def state(self) -> Path:
        """The state folder, absolute."""
        return (PROJECT / self.lab.state.expanduser()).resolve()

    @property
    def url(self) -> str:
        """Where this machine reaches the lab, without a slash at the end."""
        host = "127.0.0.1" if self.hub.address in ("0.0.0.0", "::") else self.hub.address  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.hub.port}"

    @property
    def database_url(self) -> str:
        return self.catalog.database_url or f"sqlite:///{self.state / 'catalog.sqlite'}"

    @property
    def blob_url(self) -> str:
        return self.catalog.blob_url or str(self.state / "blobs")

    @property
    def ca_bundle(self) -> Path | None:
        """The CA bundle for image builds; None if this machine needs none. Raise SettingsError if it is no file."""
        named = self.engine.ca_bundle
        if named and not Path(named).expanduser().is_file():
            raise SettingsError(
                f"engine.ca_bundle={named!r} is no file. Name a file of PEM certificates, or leave it empty."
            )
        usual = (os.environ.get(variable, "") for variable in CA_VARIABLES)
        found = named or next((path for path in usual if path and Path(path).is_file()), "")
        return Path(found).expanduser() if found else None

    @property
    def docker_host(self) -> str:
        """The address of the Docker Engine to use."""
        return self.engine.docker_host or os.environ.get("DOCKER_HOST", "") or "unix:///var/run/docker.sock"

    @property
    def proxy_variables(self) -> dict[str, str]:
        """The proxy that this machine reaches the internet through, for image builds."""
        return {name: os.environ[name] for name in PROXY_VARIABLES if os.environ.get(name)}

    def with_engine(self, kind: str) -> Settings:
        """Return these settings with the engine decided."""
        return self.model_copy(update={"engine": self.engine.model_copy(update={"kind": kind})})

    def with_lab(self, name: str) -> Settings:
        """Return these settings for the lab of that name."""
        return self.model_copy(update={"lab": self.lab.model_copy(update={"name": name})})

    def inside(self, state: Path) -> Settings:
        """Return these settings as the Hub's container sees them: its own paths, and only what it needs."""
        engine = self.engine.model_copy(update={"docker_host": "", "ca_bundle": ""})
        return self.model_copy(update={"lab": self.lab.model_copy(update={"state": state}), "engine": engine})

    def dump(self) -> str:
        """Return these settings as JSON that ``load_settings`` reads back, secrets included: keep it 0600."""
        data = self.model_dump(mode="json")
        data["lab"]["state"] = str(self.state)
        data["login"]["client_secret"] = self.login.client_secret.get_secret_value()
        data["mail"]["password"] = self.mail.password.get_secret_value()
        return json.dumps(data, indent=1)


def load_settings() -> Settings:
    """Read the settings file and the environment. Raise SettingsError with everything that is wrong at once."""
    path, data = _read_file()
    problems = list(_unknown_variables(os.environ))
    settings = None
    try:
        settings = Settings(**data)
    except ValidationError as error:
        problems += [_sentence(dict(found), path) for found in error.errors(include_url=False)]
    except ValueError as error:  # pydantic-settings' own, for a section given as one variable
        problems.append(str(error))
    if problems or settings is None:
        raise SettingsError("The settings are wrong:\n" + "\n".join(f"- {p}" for p in problems))
    return settings


def every_setting() -> Iterator[tuple[str, str, str, str]]:
    """Yield (``section.name``, its environment variable, its default, its description) for each setting."""
    for section, section_field in Settings.model_fields.items():
        kind = section_field.annotation
        for name, field in kind.model_fields.items() if isinstance(kind, type) and issubclass(kind, BaseModel) else ():
            default = field.default
            if isinstance(default, ByteSize):
                text = default.human_readable(separator=" ")
            elif isinstance(default, SecretStr):
                text = ""
            else:
                text = json.dumps(default) if isinstance(default, bool) else str(default)
            yield f"{section}.{name}", _variable(section, name), text, field.description or ""


def _variable(section: str, name: str) -> str:
    return f"{PREFIX}{section.upper()}__{name.upper()}"


def _read_file() -> tuple[Path | None, dict[str, Any]]:
    named = os.environ.get("PROVEROM_CONFIG")
    path = Path(named).expanduser() if named else PROJECT / "proverom.toml"
    if not named and not path.is_file():
        return None, {}
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise SettingsError(
            f"The settings file {path} cannot be read: {error.strerror}. Correct PROVEROM_CONFIG or the file."
        ) from None
    except ValueError as error:
        raise SettingsError(f"The settings file {path} is not valid: {error}. Correct it and start again.") from None
    if not isinstance(data, dict):
        raise SettingsError(f"The settings file {path} holds no sections. Begin with one like [lab].")
    return path, data


def _unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    known = {variable for _, variable, _, _ in every_setting()}
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known | OTHER_VARIABLES:
            section = name[len(PREFIX) :].lower().partition("__")[0]
            if "__" in name and section in Settings.model_fields:
                continue  # pydantic refuses it, and _sentence says so
            yield (
                f"{name}={environ[name]!r} is not a setting.{_closest(name.upper(), known)} Settings are named "
                f"{PREFIX}<SECTION>__<NAME>, with the sections {', '.join(Settings.model_fields)}."
            )


def _closest(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]}?" if near else ""


def _sentence(error: Mapping[str, Any], path: Path | None) -> str:
    """Return one plain sentence for one of pydantic's errors: name, value, what is allowed, where it was set."""
    where = [str(part) for part in error["loc"]]
    name = ".".join(where)
    shown = "***" if any(word in name for word in ("secret", "password", "database_url")) else repr(error["input"])
    variable = _variable(*where[:2]) if len(where) >= 2 else ""
    origin = f" ({variable})" if variable in os.environ else f" (in {path})" if path else ""
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        section = Settings.model_fields.get(where[0])
        kind = section.annotation if section else None
        if len(where) > 1 and isinstance(kind, type) and issubclass(kind, BaseModel):
            known = set(kind.model_fields)
            hint = _closest(where[1], known)
            return f"{name}={shown}{origin} is not a setting.{hint} [{where[0]}] has: {', '.join(sorted(known))}."
        sections = tuple(Settings.model_fields)
        return f"[{name}]{origin} is no section.{_closest(name, set(sections))} There are: {', '.join(sections)}."
    if not where or len(where) == 1:
        return f"{'[' + name + '] ' if name else ''}{message}{origin}"
    return f"{name}={shown}{origin} is wrong: {message}."
