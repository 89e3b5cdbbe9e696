"""models.toml, validated: which models serve which role, with which settings.

Everything a user can get wrong in the file or on `--set` ends here as one `ConfigError` that
names the place, what was found and what is allowed. Whether a model directory is complete is
left to whoever opens it (`generator`, `salience`, `backends`); nothing heavy is imported here.
"""

from __future__ import annotations

import difflib
import reprlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from npc_local.core.config.settings import (
    BackendSettings,
    EncoderSettings,
    GeneratorSettings,
    ProfileSettings,
    Section,
    listed,
)
from npc_local.core.errors import ConfigError
from npc_local.core.files import paths

_PACKAGE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class ResolvedProfile:
    """One profile with the entries themselves.

    `verifier`, `captioner` and `proposer` are keys of `backends`, which holds each backend once.
    """

    name: str
    candidates: int
    description: str
    generator: GeneratorSettings
    encoder: EncoderSettings
    verifier: str
    captioner: str
    proposer: str
    strictness: Literal["strict", "normal", "lenient"]
    votes: int
    proposals: Literal["caption", "prompt-only", "targeted-only", "untargeted-only"]
    gpu: Literal["resident", "phased"]
    backends: Mapping[str, BackendSettings]


class Config(Section):
    """The whole of models.toml."""

    default_profile: str
    profiles: dict[str, ProfileSettings]
    generators: dict[str, GeneratorSettings] = Field(default={})
    backends: dict[str, Annotated[BackendSettings, Field(discriminator="kind")]] = Field(default={})
    encoders: dict[str, EncoderSettings] = Field(default={})

    _source: str = PrivateAttr(default="models.toml")

    def profile(self, name: str | None = None) -> ResolvedProfile:
        """Return the named profile (None: the default one) with its entries looked up.

        Raises:
            ConfigError: there is no such profile.
        """
        name = self.default_profile if name is None else name
        if name not in self.profiles:
            raise ConfigError(f"{self._source}: {_no_such('profile', name, self.profiles)}")
        chosen = self.profiles[name]
        agents = (chosen.verifier, chosen.captioner, chosen.proposer)
        return ResolvedProfile(
            name=name,
            candidates=chosen.candidates,
            description=chosen.description,
            generator=self.generators[chosen.generator],
            encoder=self.encoders[chosen.encoder],
            verifier=chosen.verifier,
            captioner=chosen.captioner,
            proposer=chosen.proposer,
            strictness=chosen.strictness,
            votes=chosen.votes,
            proposals=chosen.proposals,
            gpu=chosen.gpu,
            backends={agent: self.backends[agent] for agent in agents},
        )


def load_config(path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read and validate models.toml.

    Args:
        path: the file; None takes ./models.toml if there is one, else the shipped file.
        overrides: `KEY=VALUE` each, KEY dotted (`generators.shapes.steps`), VALUE in TOML or,
            where it is not TOML, a bare string. Relative paths are taken from the file's directory.

    Raises:
        ConfigError: the file cannot be read, or anything in it or in `overrides` is not allowed.
    """
    file = find_config(path)
    path = file.path
    document = _read(path)
    overridden = {_override(document, assignment) for assignment in overrides}
    try:
        config = Config.model_validate(document, context=file.base)
    except ValidationError as error:
        faults = _merged(_fault(detail) for detail in error.errors(include_url=False))
    else:
        config._source = str(path)
        faults = _unresolved(config)
    if faults:
        raise ConfigError(
            "\n".join(f"{_origin(path, key, overridden)}: {message}" for key, message in faults)
        )
    return config


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A models.toml: where it is, why it is this one, and where relative paths in it start."""

    path: Path
    which: Literal["named", "here", "shipped"]
    base: Path


def find_config(path: Path | None = None) -> ConfigFile:
    """Return which models.toml is used; whether it is there is told when it is read.

    Args:
        path: the file; None takes ./models.toml if there is one, else the shipped file.

    Raises:
        ConfigError: it cannot be looked at.
    """
    which: Literal["named", "here", "shipped"] = "named"
    if path is None:
        path, which = Path("models.toml"), "here"
        if not paths.is_file(path, ConfigError):
            inside = _PACKAGE / "models.toml"  # of a wheel; in a checkout it is at the root
            shipped = paths.is_file(inside, ConfigError)
            path, which = inside if shipped else _PACKAGE.parent / "models.toml", "shipped"
    # Nobody keeps models inside an installed package: its file's paths start where one is.
    if path == _PACKAGE / "models.toml":
        return ConfigFile(path, which, paths.working_directory())
    return ConfigFile(path, which, paths.resolved(path, ConfigError).parent)


def _read(path: Path) -> dict[str, Any]:
    """Parse the file, or raise a ConfigError that says why it cannot be."""
    if paths.is_dir(path, ConfigError):
        raise ConfigError(f"{path}: a directory, not a file; name the models.toml in it")
    try:
        # "-sig": some editors start a UTF-8 file with a byte order mark.
        return tomllib.loads(paths.read(path, ConfigError).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _override(document: dict[str, Any], assignment: str) -> str:
    """Put one `KEY=VALUE` into the parsed document and return KEY."""
    key, equals, text = assignment.partition("=")
    *parents, last = key.strip().split(".")
    if not equals or not last:
        raise ConfigError(f"--set {assignment}: expected KEY=VALUE with a dotted KEY")
    table = document
    for depth, parent in enumerate(parents):
        if depth > 1:  # a table inside an entry: if there is none of that name, it will be told
            table.setdefault(parent, {})
        if not isinstance(table.get(parent), dict):
            known = [name for name, value in table.items() if isinstance(value, dict)]
            raise ConfigError(f"--set {assignment}: {_no_such('table', parent, known)}")
        table = table[parent]
    table[last] = _toml_value(text.strip())
    return key.strip()


def _toml_value(text: str) -> Any:
    """Read `text` as one TOML value; what is not one is a bare string."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _origin(path: Path, key: str, overridden: Iterable[str]) -> str:
    """Name what the user wrote that made `key` wrong: an override, or the file."""
    for override in sorted(overridden):
        if f"{key}.".startswith(f"{override}.") or override.startswith(f"{key}."):
            return f"--set {override}"
    return f"{path}: {key}"


def _unresolved(config: Config) -> list[tuple[str, str]]:
    """Return (key, message) for every name that points at no entry."""
    references = [("default_profile", "profile", config.default_profile, list(config.profiles))]
    for name, profile in config.profiles.items():
        for key, kind, known in (
            ("generator", "generator", list(config.generators)),
            ("verifier", "backend", list(config.backends)),
            ("captioner", "backend", list(config.backends)),
            ("proposer", "backend", list(config.backends)),
            ("encoder", "encoder", list(config.encoders)),
        ):
            references.append((f"profiles.{name}.{key}", kind, getattr(profile, key), known))
    return [
        (key, _no_such(kind, name, known))
        for key, kind, name, known in references
        if name not in known
    ]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the file a fault is: its dotted key, the table around it, and what it is itself."""

    key: str
    table: type[Section]
    is_table: bool


def _place(loc: Sequence[int | str]) -> _Place:
    """Find the place of a pydantic error by walking the settings' own types.

    Where a value may be one of several, pydantic puts its choice into the way; keys leave it out.
    """
    keys: list[str] = []
    table: type[Section] = Config
    here: Any = Config
    for part in loc:
        here = _bare(here)
        if _is_section(here):
            table = here
            field = here.model_fields.get(str(part))
            here = None if field is None else field.annotation
        elif get_origin(here) in (Union, UnionType):
            sections = [choice for choice in get_args(here) if _is_section(choice)]
            kinds = {
                kind: s for s in sections for kind in get_args(s.model_fields["kind"].annotation)
            }
            here = kinds.get(part)
            continue
        elif get_origin(here) in (dict, list):
            here = get_args(here)[-1]
        keys.append(str(part))
    return _Place(".".join(keys), table, _is_section(_bare(here)))


def _bare(annotation: Any) -> Any:
    """Return a type without its constraints, and without None as another choice."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        choices = [choice for choice in get_args(annotation) if choice is not NoneType]
        if len(choices) == 1:
            return _bare(choices[0])
    return annotation


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _fault(detail: ErrorDetails) -> tuple[str, str]:
    """Translate one pydantic error into (dotted key, message)."""
    place = _place(detail["loc"])
    key, kind = place.key, detail["type"]
    if kind == "extra_forbidden":
        return key, _no_such("key", str(detail["loc"][-1]), place.table.model_fields)
    if kind == "missing":
        return key, "missing, and required"
    if kind == "union_tag_not_found":
        return f"{key}.kind", "missing, and required"
    if kind == "union_tag_invalid":
        context = detail["ctx"]
        return f"{key}.kind", f"found {context['tag']!r}; must be one of {context['expected_tags']}"
    if kind == "value_error" and place.is_table:
        # Raised by a validator over a whole table: it names the keys and values itself.
        return key, str(detail["ctx"]["error"])
    if kind in {"dict_type", "model_type", "model_attributes_type"}:
        return key, f"found {reprlib.repr(detail['input'])}; must be a table"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return key, f"found {reprlib.repr(detail['input'])}; {message}"


def _merged(faults: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return one fault for a value that fits none of its choices, which pydantic names each."""
    merged: dict[tuple[str, str], str] = {}
    for key, message in faults:
        value, must_be, choice = message.partition("; must be ")
        before = merged.get((key, value))
        merged[key, value] = f"{before} or {choice}" if before else must_be + choice
    return [(key, value + rest) for (key, value), rest in merged.items()]


def _no_such(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is unknown, which one it may have meant, and which there are."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {kind} {name!r}{hint} known: {listed(known) or 'none'}"
