"""What a vLLM server is started with: its flags, its environment, and a directory that it can load.

Checked with vLLM 0.32. Reads files only; which files make a good model directory beyond those that
the server cannot start without is the matter of `npc-local doctor`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from npc_local.core.config.settings import ChatBackendSettings, ServerSettings
from npc_local.core.errors import ConfigError
from npc_local.core.files import paths
from npc_local.core.files.fault import raise_first
from npc_local.core.files.model_directory import require_directory, served_faults
from npc_local.core.offline.switches import child_environment

HOST = "127.0.0.1"
_MODULE = "vllm.entrypoints.openai.api_server"  # `vllm serve` wants a distribution of that name

_SWITCHES = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": HOST,  # else it asks the routing table by way of a public address
    "VLLM_LOOPBACK_IP": HOST,
    "VLLM_USE_MODELSCOPE": "0",
    "VLLM_PLUGINS": "",  # none: some look models up on a hub
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
    "PYTHONSAFEPATH": "1",  # nothing in its working directory is taken for a module
    "PYTHONUNBUFFERED": "1",  # so that the log has the last words of one that died
}
_SLEEP_ROUTES = "VLLM_SERVER_DEV_MODE"

# Without these, answers can be blanks without end (vLLM issue 38696); alone, `auto` is refused.
_STRUCTURED = {"backend": "xgrammar", "disable_any_whitespace": True}
# What keeps code of others, other addresses and other users out is not for `arguments` to change.
_OURS = (
    *("--model", "--served-model-name", "--host", "--port", "--uds", "--config", "--api-key"),
    *("--structured-outputs-config", "--load-format", "--trust-remote-code"),
    *("--allowed-media-domains", "--allowed-local-media-path", "--enable-sleep-mode"),
    *("--tool-parser-plugin", "--reasoning-parser-plugin", "--io-processor-plugin"),
    # Names of classes and functions, and files that name them.
    *("--middleware", "--worker-cls", "--worker-extension-cls", "--scheduler-cls"),
    *("--logits-processors", "--model-class-overrides", "--distributed-executor-backend"),
    *("--kv-transfer-config", "--ec-transfer-config", "--ec-manager-config"),
    *("--logging-config", "--log-config-file", "--tool-server"),
    # Addresses to send to or to listen at, and who may call.
    *("--otlp-traces-endpoint", "--kv-events-config", "--weight-transfer-config"),
    *("--data-parallel-address", "-dpa", "--master-addr", "--root-path", "--allowed-origins"),
    *("--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-cert-reqs", "--ssl-ciphers"),
    "--enable-ssl-refresh",
)


def interpreter(name: str, server: ServerSettings) -> Path:
    """Return the Python that has vLLM, as an absolute path.

    Raises:
        ConfigError: it is not there.
    """
    # Not resolved: a virtual environment's interpreter is a link that must be called by its name.
    python = Path(sys.executable) if server.python is None else paths.absolute(server.python)
    if not paths.is_file(python, ConfigError):
        raise ConfigError(
            f"backends.{name}.server.python: {python}: no such file; name the interpreter of the "
            "environment that has vLLM (ENVIRONMENT/bin/python)"
        )
    return python


def command(
    name: str, settings: ChatBackendSettings, server: ServerSettings, port: int
) -> list[str]:
    """Return the command line of a server on a port of this machine.

    Raises:
        ConfigError: no interpreter, or `arguments` set what is not theirs to set.
    """
    for argument in server.arguments:
        flag = argument.split("=", 1)[0].split(".", 1)[0].replace("_", "-").lower()
        short = len(flag) > 2 and flag.startswith("--")
        taken = [ours for ours in _OURS if flag == ours or (short and ours.startswith(flag))]
        if taken:
            raise ConfigError(
                f"backends.{name}.server.arguments: {argument!r} cannot be set here, it is "
                f"npc-local's to set or to leave out ({taken[0]})"
            )
    flags = {
        "model": paths.absolute(server.model),
        "served-model-name": settings.model,
        "host": HOST,
        "port": port,
        "structured-outputs-config": json.dumps(_STRUCTURED, separators=(",", ":")),
        "allowed-media-domains": "invalid.invalid",  # an empty list would allow all
        "gpu-memory-utilization": server.gpu_memory_utilization,
        "max-model-len": server.max_model_len,
        "dtype": server.dtype,
        "load-format": "safetensors",
    }
    return [
        *(str(interpreter(name, server)), "-m", _MODULE),
        *(f"--{flag}={value}" for flag, value in flags.items()),
        "--disable-fastapi-docs",  # they load scripts from elsewhere
        *(["--enable-sleep-mode"] if server.sleep else []),
        *server.arguments,
    ]


def environment(name: str, server: ServerSettings) -> dict[str, str]:
    """Return the server's environment: an allowlist of ours, `server.environment`, all switches.

    Raises:
        ConfigError: `server.environment` would undo a switch, or there is no interpreter.
    """
    python = interpreter(name, server)
    # Nobody activates its environment; programs that it calls (ninja) stand beside its Python.
    path = os.pathsep.join(filter(None, (str(python.parent), os.environ.get("PATH"))))
    forced = _SWITCHES | {_SLEEP_ROUTES: str(int(server.sleep))}
    for variable, value in server.environment.items():
        if value != forced.get(variable, value):
            raise ConfigError(
                f"backends.{name}.server.environment: {variable} = {value!r} cannot be set here; "
                "leave it out"
            )
    try:
        return child_environment({"PATH": path, **server.environment, **forced})
    except ConfigError as error:
        raise ConfigError(f"backends.{name}.server.{error}") from None


def check_directory(server: ServerSettings) -> None:
    """Check that a model directory holds what vLLM needs.

    Raises:
        ConfigError: its tokenizer needs a package that is not installed.
        ModelFilesError: something is missing or damaged.
    """
    require_directory(server.model)
    raise_first(served_faults(server.model, own_template=has_own_template(server)))


def has_own_template(server: ServerSettings) -> bool:
    """Return whether a server is given a chat template, so that its model need not hold one."""
    return any(flag.startswith(("--chat-template", "--chat_template")) for flag in server.arguments)
