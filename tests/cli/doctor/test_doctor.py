"""npc-local doctor: a healthy machine passes, each thing that is missing or unsafe is named."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement

from npc_local.cli import main as cli
from npc_local.cli.doctor import command, estimate, machine, servers
from npc_local.cli.doctor.directories import (
    inspect_directory,
    inspect_pipeline,
    inspect_served_model,
)
from npc_local.cli.doctor.files import inspect_files
from npc_local.cli.doctor.findings import Finding, error, exit_code
from npc_local.core.config.settings import ChatBackendSettings, EncoderSettings, GeneratorSettings
from npc_local.core.errors import BackendError, ConfigError, StorageError
from npc_local.core.files.manifest import write_manifest
from npc_local.generator.loading.directory import check_directory
from tests.backends.fake_server import FakeServer, status

ROOT = Path(__file__).parents[3]
SHAPES = ROOT / "npc_local" / "shapes" / "weights"
GENERATOR = {"steps": 4, "true_cfg_scale": 2.0, "height": 1000, "width": 1000}


def doctor(*arguments):
    """Run the command with --json; return its exit code and report."""
    result = CliRunner().invoke(cli.main, ["doctor", "--json", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, json.loads(result.stdout)


def said(findings, level="error"):
    """The findings of one level as text."""
    return [f"{one.where}: {one.what}" for one in findings if one.level == level]


def safetensors(file, dtype="F32", shape=(2, 2), more=b""):
    width = {"F32": 4, "BF16": 2, "I64": 8}[dtype]
    size = width * shape[0] * shape[1]
    header = json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size) + more)


@pytest.fixture
def pipeline(tmp_path):
    """The shapes pipeline, to be damaged."""
    shutil.copytree(SHAPES, tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.fixture
def served(tmp_path):
    """A vision-language model directory, complete as far as files go."""
    root = tmp_path / "vlm"
    safetensors(root / "model.safetensors")
    for name, content in {
        "config.json": {"model_type": "qwen3_vl", "vision_config": {}},
        "tokenizer_config.json": {"chat_template": "{{ messages }}"},
        "tokenizer.json": {},
        "preprocessor_config.json": {},
    }.items():
        (root / name).write_text(json.dumps(content))
    return root


# ---- The command ---------------------------------------------------------------------------------


def test_the_shipped_profile_is_healthy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, report = doctor()
    assert code == 0
    assert report["ok"] is True
    assert {found["level"] for found in report["findings"]} <= {"ok", "note"}
    assert list(tmp_path.iterdir()) == []


def test_no_model_library_is_imported(tmp_path):
    program = (
        "import sys\nfrom npc_local.cli.main import main\n"
        "try: main(['doctor'])\nexcept SystemExit as end: code = end.code\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'huggingface_hub', 'numpy'}\n"
        "print(code, sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.splitlines()[-1] == "0 []", run.stderr


def test_text_comes_worst_first_with_what_to_do(tmp_path):
    result = CliRunner().invoke(cli.main, ["doctor", str(tmp_path / "none\x1b[31m")])
    assert result.exit_code == 5
    lines = result.stdout.splitlines()
    assert lines[0].startswith("error ")
    assert "no such directory" in lines[0]
    assert lines[1].strip().startswith("-> download the model")
    assert lines[-1] == "1 error"
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--profile", "nope"],
        ["--set", "generators.shapes.stepz=1"],
        ["--config", "/none/models.toml"],
    ],
)
def test_settings_that_cannot_be_read_are_a_finding(arguments):
    code, report = doctor(*arguments)
    assert code == 2
    assert [found["exit_code"] for found in report["findings"]] == [2]


def test_a_directory_or_a_profile_not_both(tmp_path):
    result = CliRunner().invoke(cli.main, ["doctor", str(tmp_path), "--profile", "shapes"])
    assert result.exit_code == 2
    assert "not both" in result.stderr


def test_the_first_error_gives_the_exit_code():
    first, second = error("a", kind=BackendError), error("b", kind=ConfigError)
    assert exit_code([Finding("warning", "w"), first, second]) == 4
    assert exit_code([Finding("note", "n")]) == 0


def test_a_manifest_is_checked(pipeline):
    manifest = pipeline.parent / "m.sha256"
    write_manifest(manifest, [pipeline])
    code, report = doctor(pipeline, "--manifest", manifest)
    assert code == 0
    assert any("files are as listed" in found["what"] for found in report["findings"])
    # As long as before: only the hash can tell.
    file = pipeline / "README.md"
    file.write_bytes(file.read_bytes().replace(b"a", b"b"))
    (pipeline / "vae" / "extra.txt").write_text("")
    code, report = doctor(pipeline, "--manifest", manifest)
    assert code == 5
    assert any("SHA-256" in found["what"] for found in report["findings"])
    assert any("does not list" in found["what"] for found in report["findings"])
    code, report = doctor(pipeline, "--manifest", pipeline / "none.sha256")
    assert code == 5
    assert any("written last" in found["do"] for found in report["findings"])


def test_progress_of_large_files_is_one_line_on_stderr(capsys):
    progress = command._Progress()
    progress("small.json", 1, 2)
    assert capsys.readouterr().err == ""
    progress("a/\x1b[31mw.safetensors", 5_000_000_000, 20_000_000_000)
    progress("a/w.safetensors", 5_000_000_001, 20_000_000_000)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\r") == 1
    assert " 25% of 20.0 GB" in shown.err
    assert "\x1b[31m" not in shown.err
    progress("a/w.safetensors", 20_000_000_000, 20_000_000_000)
    assert capsys.readouterr().err == "\r\x1b[K"


# ---- Pipelines (F26, F27) ------------------------------------------------------------------------


def remove(name):
    def damage(root):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def write(name, text):
    def damage(root):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)

    return damage


def rename(name, new):
    return lambda root: (root / name).rename(root / new)


def truncate(name):
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:-1])


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("model_index.json"), "neither model_index.json nor config.json"),
        (
            remove("transformer"),
            "transformer: no such directory: the folder of FluxTransformer2DModel",
        ),
        (remove("vae/config.json"), "vae/config.json: missing"),
        (remove(WEIGHTS), "transformer: no weights: diffusion_pytorch_model.safetensors"),
        (remove("text_encoder/model.safetensors"), "text_encoder: no weights: model.safetensors"),
        (truncate(WEIGHTS), "damaged or truncated"),
        (remove("tokenizer/tokenizer.json"), "tokenizer: no tokenizer.json, nor the older files"),
        (remove("tokenizer_2/tokenizer_config.json"), "tokenizer_config.json: missing"),
        (write("tokenizer/tokenizer.json", "{"), "tokenizer.json: cannot be read"),
        (remove("scheduler/scheduler_config.json"), "scheduler_config.json: missing"),
        (write("vae/config.json", "{"), "vae/config.json: cannot be read, damaged"),
        (rename(WEIGHTS, "transformer/flux.safetensors"), "flux.safetensors: another layout"),
        (rename(WEIGHTS, WEIGHTS.replace(".safe", "-00001-of-00001.safe")), "shards without"),
        (
            write(
                "transformer/diffusion_pytorch_model.safetensors.index.json",
                '{"weight_map": {"a": "lost.safetensors"}}',
            ),
            "lost.safetensors: missing",
        ),
        (write(WEIGHTS, LFS), "a git-lfs pointer"),
        (
            write("text_encoder/config.json", '{"auto_map": {"AutoModel": "org/repo--m.Model"}}'),
            "auto_map points at code on a hub: org/repo--m.Model",
        ),
        (write("model_index.json", '{"_class_name": "NoPipeline"}'), "NoPipeline"),
    ],
)
def test_what_a_pipeline_lacks_is_an_error(pipeline, damage, message):
    damage(pipeline)
    errors = said(inspect_directory(pipeline))
    assert any(message in one for one in errors), errors
    assert exit_code(inspect_directory(pipeline)) in {2, 5}
    assert not said(inspect_directory(pipeline), "ok")


def test_a_variant_of_the_weights_will_do(pipeline):
    rename(WEIGHTS, WEIGHTS.replace(".safe", ".fp16.safe"))(pipeline)
    found = list(inspect_directory(pipeline))
    assert said(found) == []
    assert estimate.weight_bytes(pipeline / "transformer", 4) > 1000
    name = WEIGHTS.replace("transformer", "vae")
    rename(name, name.replace(".safe", ".bf16.safe"))(pipeline)
    [fault] = said(inspect_directory(pipeline))
    assert "not one variant in common (transformer: fp16 and vae: bf16)" in fault


def test_a_size_that_a_run_refuses_is_an_error_of_doctor_too():
    for sizes in ({"height": 1000, "width": 1001}, {"height": 17, "width": 16}):
        settings = GeneratorSettings(path=SHAPES, **GENERATOR | sizes)
        with pytest.raises(ConfigError) as refusal:
            check_directory(settings)
        [fault] = said(inspect_pipeline(settings))
        assert fault == str(refusal.value)
        assert "must be a multiple of" in fault
    assert said(inspect_directory(SHAPES)) == []


def test_a_directory_that_holds_models_is_not_looked_through(pipeline, monkeypatch):
    monkeypatch.setattr("npc_local.cli.doctor.directories.inspect_files", pytest.fail)
    [finding] = inspect_directory(pipeline.parent)
    assert finding.what.startswith("no model directory: neither model_index.json nor config.json")
    assert finding.do == f"name a model in it: {pipeline}"
    [finding] = inspect_directory(pipeline / "tokenizer")
    assert finding.do == "name the directory that holds one of them"
    [finding] = inspect_directory(pipeline / "README.md")
    assert finding.what.startswith("no such directory")


def test_every_fault_is_named_not_only_the_first(pipeline):
    remove("tokenizer/tokenizer.json")(pipeline)
    remove("vae/config.json")(pipeline)
    truncate(WEIGHTS)(pipeline)
    assert len(said(inspect_directory(pipeline))) == 3


def test_a_pipeline_of_another_kind_is_a_fault_of_the_settings(pipeline):
    index = pipeline / "model_index.json"
    index.write_text(index.read_text().replace("FluxPipeline", "Flux2Pipeline"))
    assert exit_code(inspect_directory(pipeline)) == 2


def test_pickles_are_named_and_never_opened(pipeline, tmp_path):
    sentinel = tmp_path / "ran"
    evil = f"cos\nsystem\n(S'touch {sentinel}'\ntR.".encode()
    (pipeline / "vae" / "diffusion_pytorch_model.bin").write_bytes(evil)
    found = list(inspect_directory(pipeline))
    assert said(found) == []
    assert any(
        "pickled files: diffusion_pytorch_model.bin" in one for one in said(found, "warning")
    )
    (pipeline / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert any("pickled weights are not loaded" in one for one in said(inspect_directory(pipeline)))
    assert not sentinel.exists()


def test_code_links_and_unfinished_downloads(pipeline, tmp_path):
    sentinel = tmp_path / "ran"
    (pipeline / "modeling.py").write_text(f"open({str(sentinel)!r}, 'w')")
    write("vae/config.json", '{"auto_map": {"AutoModel": "modeling.Model"}}')(pipeline)
    outside = tmp_path / "blob"
    shutil.move(pipeline / WEIGHTS, outside)
    (pipeline / WEIGHTS).symlink_to(outside)
    (pipeline / "vae" / "x.safetensors").symlink_to(tmp_path / "nowhere")
    hub = pipeline / ".cache" / "huggingface" / "download"
    hub.mkdir(parents=True)
    (hub / "w.incomplete").write_text("")
    found = list(inspect_files(pipeline))
    notes = "\n".join(said(found, "note"))
    for words in ("modeling.py", "auto_map names code", "1 links lead out"):
        assert words in notes
    assert said(found) == [f"{pipeline / 'vae' / 'x.safetensors'}: a link that leads nowhere"]
    assert "an unfinished download: w.incomplete" in said(found, "warning")[0]
    assert not sentinel.exists()


@pytest.mark.parametrize(
    ("files", "package"), [(["spiece.model"], "sentencepiece"), (["qwen.tiktoken"], "tiktoken")]
)
def test_old_tokenizers_need_a_package(pipeline, monkeypatch, files, package):
    (pipeline / "tokenizer_2" / "tokenizer.json").unlink()
    for name in files:
        (pipeline / "tokenizer_2" / name).write_text("")
    known: set[str] = set()
    monkeypatch.setattr(
        "npc_local.core.files.tokenizer.importlib.util.find_spec",
        lambda name, *_: name if name in known else None,
    )
    found = list(inspect_directory(pipeline))
    assert any(f"it needs {package}, which is not installed" in one for one in said(found))
    assert exit_code(found) == 2
    known.add(package)
    found = list(inspect_directory(pipeline))
    assert said(found) == []
    assert any(f"read with {package}" in one for one in said(found, "note"))


@pytest.mark.parametrize("files", [("vocab.json", "merges.txt"), ("vocab.txt",)])
def test_older_files_that_need_nothing(pipeline, files):
    (pipeline / "tokenizer" / "tokenizer.json").unlink()
    for name in files:
        (pipeline / "tokenizer" / name).write_text("{}")
    assert said(inspect_directory(pipeline)) == []


def test_gguf_stands_in_for_the_denoiser(pipeline, tmp_path, monkeypatch):
    real = machine._version
    monkeypatch.setattr(machine, "_version", lambda name: "1.0" if name == "gguf" else real(name))
    (pipeline / WEIGHTS).unlink()
    options = ["--set", f"generators.shapes.path={pipeline}"]
    code, _ = doctor(*options)
    assert code == 5
    gguf = tmp_path / "d.gguf"
    gguf.write_text("GGUF")
    code, report = doctor(*options, "--set", f"generators.shapes.gguf={gguf}")
    assert code == 0, report
    code, report = doctor(*options, "--set", f"generators.shapes.gguf={tmp_path / 'none.gguf'}")
    assert code == 5
    errors = [found for found in report["findings"] if found["level"] == "error"]
    assert [(one["where"], one["what"]) for one in errors] == [
        (str(tmp_path / "none.gguf"), "no such file (gguf)")
    ]
    gguf.write_text("<!DOCTYPE html>")
    code, report = doctor(*options, "--set", f"generators.shapes.gguf={gguf}")
    assert code == 5
    assert any("by its first bytes" in found["what"] for found in report["findings"])


def test_loras_are_checked_each(pipeline, tmp_path):
    (tmp_path / "two").mkdir()
    safetensors(tmp_path / "cut.safetensors")
    settings = GeneratorSettings(
        path=SHAPES,
        **GENERATOR,
        loras=[{"path": tmp_path / name} for name in ("none", "two", "cut.safetensors")],
    )
    errors = said(inspect_pipeline(settings))
    assert len(errors) == 2
    assert "no such file or directory (loras)" in errors[0]
    assert "must be a .safetensors file" in errors[1]


def test_the_encoder_is_checked_by_itself(pipeline):
    (pipeline / "text_encoder_2" / "model.safetensors").unlink()
    code, report = doctor("--set", f"encoders.shapes.path={pipeline}")
    assert code == 5
    assert [found["where"] for found in report["findings"] if found["level"] == "error"] == [
        str(pipeline / "text_encoder_2")
    ]


# ---- Models of vLLM servers ----------------------------------------------------------------------


def test_a_complete_vision_language_model(served):
    found = list(inspect_served_model(served, images=True))
    assert [one.level for one in found] == ["ok"]
    assert [one.level for one in inspect_directory(served)] == ["ok"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("config.json"), "config.json: missing"),
        (remove("tokenizer.json"), "no tokenizer.json"),
        (remove("preprocessor_config.json"), "image processor's configuration is missing"),
        (write("tokenizer_config.json", "{}"), "no chat template"),
        (remove("model.safetensors"), "no weights"),
        (rename("model.safetensors", "pytorch_model.bin"), "pickled weights are not loaded"),
        (
            write("config.json", '{"vision_config": {}, "auto_map": {"AutoConfig": "o/r--c.C"}}'),
            "points at code on a hub",
        ),
        (write("config.json", '{"model_type": "llama"}'), "text-only model"),
    ],
)
def test_what_a_served_model_lacks_is_an_error(served, damage, message):
    damage(served)
    errors = said(inspect_served_model(served, images=True))
    assert any(message in one for one in errors), errors


def test_a_template_may_be_a_file_or_an_argument(served):
    write("tokenizer_config.json", "{}")(served)
    assert said(inspect_served_model(served, own_template=True)) == []
    write("chat_template.jinja", "{{ messages }}")(served)
    assert said(inspect_served_model(served)) == []


# ---- Servers -------------------------------------------------------------------------------------


@contextmanager
def server(reply, status=200):
    """A server that answers each GET with `reply` (bytes, or a function of the handler)."""
    seen: list[tuple[str, str | None]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers.get("Authorization")))
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()
            if callable(reply):
                reply(self)
            else:
                self.wfile.write(reply)

        def log_message(self, *_):
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    threading.Thread(target=listening.serve_forever, args=[0.01], daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}/v1", seen
    finally:
        listening.shutdown()
        listening.server_close()


def chat(base_url, **more):
    return ChatBackendSettings(**{"kind": "vllm", "model": "vlm", "base_url": base_url, **more})


def test_a_server_that_has_the_model(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("A_KEY", "secret")
    with FakeServer("vlm") as fake:
        found = list(servers.inspect_server("b", chat(fake.base_url, api_key_env="A_KEY")))
    assert [one.level for one in found] == ["ok"]
    assert {request.headers["Authorization"] for request in fake.requests} == {"Bearer secret"}
    assert "secret" not in str(found)


def test_a_server_that_refuses_what_it_will_be_asked_is_not_ok():
    """As llama-cpp-python does, which lists its model and knows no json_schema."""
    refusal = '{"error": {"message": "response_format.type: text or json_object"}}'
    with FakeServer("vlm") as fake:
        fake.do(status(500, refusal))
        [finding] = servers.inspect_server("b", chat(fake.base_url))
    assert finding.level == "error"
    assert "HTTP 500" in finding.what
    assert 'backends.b.response_format = "json_object"' in finding.do
    assert finding.kind is BackendError


@pytest.mark.parametrize("sees", [True, False])
def test_a_server_is_shown_an_image_if_it_will_be(sees):
    with FakeServer("vlm") as fake:
        list(servers.inspect_server("b", chat(fake.base_url), sees=sees))
    content = fake.chats[0].body["messages"][-1]["content"]
    assert isinstance(content, list) == sees


@pytest.mark.parametrize(
    ("reply", "status", "message"),
    [
        (b'{"data": [{"id": "other"}]}', 200, "does not serve 'vlm', but other"),
        (b'{"data": []}', 200, "but nothing"),
        (b"<html>", 200, "no usable answer"),
        (b"[]", 200, "no list of models"),
        (b"", 302, "status 302"),
        (b"", 401, "status 401"),
    ],
)
def test_a_server_that_has_not(reply, status, message):
    with server(reply, status) as (url, seen):
        found = list(servers.inspect_server("b", chat(url)))
    assert message in said(found)[0]
    assert exit_code(found) == 4
    assert len(seen) == 1


def test_no_server_and_a_server_that_trickles(monkeypatch):
    monkeypatch.setattr(servers, "_DEADLINE", 0.5)
    assert exit_code(servers.inspect_server("b", chat("http://127.0.0.1:9/v1"))) == 4

    def trickle(handler):
        with suppress(OSError):  # cut off, as it should be
            for _ in range(100):
                handler.wfile.write(b" ")
                time.sleep(0.1)

    start = time.monotonic()
    with server(trickle) as (url, _):
        assert exit_code(servers.inspect_server("b", chat(url))) == 4
    assert time.monotonic() - start < 5


def test_beyond_this_machine_nothing_is_contacted(monkeypatch):
    monkeypatch.setattr(servers, "_served", lambda *_: pytest.fail("contacted"))
    found = list(servers.inspect_server("b", chat("http://192.0.2.1/v1")))
    assert "beyond this machine" in said(found)[0]
    assert exit_code(found) == 2
    assert exit_code(servers.inspect_server("b", chat("ftp:nothing"))) == 2


def test_an_address_that_is_allowed_is_asked(monkeypatch):
    monkeypatch.setattr(servers, "_served", lambda *_: ["vlm"])
    monkeypatch.delenv("A_KEY", raising=False)
    settings = chat("http://192.0.2.1/v1", kind="openai", allow_network=True, api_key_env="A_KEY")
    found = list(servers.inspect_server("b", settings))
    assert [one.level for one in found] == ["error", "ok"]
    assert "set the environment variable A_KEY" in found[0].what
    assert exit_code(found) == 4
    monkeypatch.setenv("A_KEY", "secret")
    found = list(servers.inspect_server("b", settings))
    assert [one.level for one in found] == ["warning", "ok"]
    assert "clear text" in found[0].what


@pytest.mark.parametrize(
    ("script", "level", "message"),
    [
        ("#!/bin/sh\necho 0.32.0", "ok", "vLLM 0.32.0"),
        ("#!/bin/sh\n", "error", "vLLM is not installed"),
        ("#!/bin/sh\nexit 3", "error", "cannot be run"),
        (None, "error", "python: no such file"),
    ],
)
def test_the_interpreter_of_a_server(tmp_path, served, script, level, message):
    python = tmp_path / "python"
    if script is not None:
        python.write_text(script)
        python.chmod(0o755)
    settings = chat(None, server={"model": served, "python": python})
    (found,) = servers.inspect_server("b", settings)
    assert found.level == level
    assert message in found.what


def test_a_real_interpreter_is_asked():
    found = servers._interpreter(Path(sys.executable))
    assert found.what == "vLLM is not installed there" or found.what.startswith("vLLM ")


def test_arguments_that_are_not_the_users_are_named(served):
    settings = chat(None, server={"model": served, "arguments": ["--trust-remote-code"]})
    found = list(servers.inspect_server("b", settings))
    assert "'--trust-remote-code' cannot be set here" in said(found)[0]
    assert exit_code(found) == 2


# ---- The machine ---------------------------------------------------------------------------------


def test_versions_are_held_against_pyproject(monkeypatch):
    needed = {
        requirement.name: (requirement, extra) for requirement, extra in machine.requirements()
    }
    assert needed["torch"] == (Requirement("torch>=2.9"), "")
    assert str(needed["peft"][0].specifier) == ">=0.17"
    assert needed["torchao"][1] == "quantization"
    assert "pytest" not in needed
    assert [one.level for one in machine.inspect_versions()] == ["ok"]
    there = {"torch": "2.8.1+cu128", "diffusers": ""}
    real = machine._version
    monkeypatch.setattr(machine, "_version", lambda name: there.get(name, real(name)))
    found = list(machine.inspect_versions())
    assert len(found) == 2
    assert exit_code(found) == 2
    assert "torch is version 2.8.1+cu128; >=2.9 is needed" in "".join(said(found))
    assert "diffusers is not installed" in "".join(said(found))
    assert "pip install 'torch>=2.9'" in [one.do for one in found]


def test_a_checkout_that_is_not_installed_names_its_packages(monkeypatch):
    def absent(_):
        raise machine.importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(machine.importlib.metadata, "requires", absent)
    named = {(str(requirement), extra) for requirement, extra in machine.requirements()}
    assert {("torch>=2.9", ""), ('peft>=0.17; extra == "lora"', "lora")} <= named


@pytest.mark.parametrize(
    ("wanted", "there", "fits"),
    [
        ("x>=2.9", "2.10", True),
        ("x>=2.9", "2.9.1", True),
        ("x>=2.9", "2.9.0+cpu", True),
        ("x>=2.9", "2.8.9", False),
        ("x>=1.0", "1.0rc1", False),
        ("x>=1.0", "1.1.dev3", True),
        ("x>=1.0,<2", "2.0", False),
        ("x", "0.1", True),
        ("x>=1.0", "", False),
        ("x>=1.0", "somebody's own", True),
    ],
)
def test_versions_are_compared_as_packages_are(monkeypatch, wanted, there, fits):
    monkeypatch.setattr(machine, "_version", lambda name: there)
    assert (machine._unfit(Requirement(wanted)) is None) is fits


def test_what_other_machines_need_is_not_asked_for(monkeypatch):
    lines = ['x>=1; sys_platform == "none"', 'y>=1; extra == "lora"', "click>=8"]
    monkeypatch.setattr(machine.importlib.metadata, "requires", lambda _: lines)
    assert [(r.name, extra) for r, extra in machine.requirements()] == [
        ("y", "lora"),
        ("click", ""),
    ]


def test_extras_that_settings_need(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_version", lambda name: "")
    settings = GeneratorSettings(
        path=SHAPES,
        **GENERATOR,
        loras=[{"path": tmp_path}],
        quantization={"kind": "bitsandbytes_4bit"},
    )
    found = list(machine.inspect_extras(settings))
    assert exit_code(found) == 2
    assert [one.do for one in found] == [
        "pip install 'npc-local[lora]'",
        "pip install 'npc-local[quantization]'",
    ]
    assert list(machine.inspect_extras(GeneratorSettings(path=SHAPES, **GENERATOR))) == []


@pytest.mark.parametrize(
    ("free", "level"), [(5 << 30, "ok"), (500 << 20, "warning"), (1 << 20, "error")]
)
def test_disk_space(monkeypatch, tmp_path, free, level):
    usage = shutil._ntuple_diskusage(free, 0, free)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    found = machine.inspect_disk(tmp_path)
    assert found.level == level
    assert found.kind is StorageError or level != "error"


# ---- Memory --------------------------------------------------------------------------------------


def test_weights_are_counted_as_they_will_be_held(tmp_path):
    safetensors(tmp_path / "model.safetensors", "F32", (10, 10))
    safetensors(tmp_path / "model.fp16.safetensors", "BF16", (10, 10))
    assert estimate.weight_bytes(tmp_path, 2) == 200
    safetensors(tmp_path / "model.safetensors", "I64", (10, 10))
    assert estimate.weight_bytes(tmp_path, 2) == 800
    (tmp_path / "model.safetensors").unlink()
    assert estimate.weight_bytes(tmp_path, 4) == 400
    (tmp_path / "model.fp16.safetensors").unlink()
    assert estimate.weight_bytes(tmp_path, 2) == 0
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"w": "a.safetensors", "v": "a.safetensors"}}'
    )
    safetensors(tmp_path / "a.safetensors", "BF16", (3, 3))
    assert estimate.weight_bytes(tmp_path, 4) == 36


def test_offload_and_quantisation_take_less():
    def need(**more):
        return estimate.generator_bytes(GeneratorSettings(path=SHAPES, **GENERATOR, **more))

    whole = need()
    assert whole > 3 * estimate.GIB
    assert need(offload="group") < need(offload="model") < whole
    assert need(quantization={"kind": "bitsandbytes_4bit"}) < need(dtype="bfloat16") + 1e6
    assert need(dtype="bfloat16") < whole


def test_an_encoder_that_is_the_generators_own_counts_once():
    generator = GeneratorSettings(path=SHAPES, **GENERATOR)
    assert estimate.encoder_bytes(EncoderSettings(path=SHAPES), generator) == 0
    assert estimate.encoder_bytes(EncoderSettings(path=SHAPES, dtype="bfloat16"), generator) > 0


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A stand-in for nvidia-smi; call it with the free and total memory in MiB."""
    folder = tmp_path / "smi"
    folder.mkdir()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def there(free, total, status=0):
        program = folder / "nvidia-smi"
        program.write_text(
            f'#!/bin/sh\necho "$@" >{folder}/called\n'
            f'echo "NVIDIA X, {free}, {total}"\nexit {status}\n'
        )
        program.chmod(0o755)
        return folder / "called"

    return there


def test_the_gpu_that_torch_will_use(nvidia_smi, monkeypatch):
    assert estimate.find_gpu("cuda") is None
    called = nvidia_smi(1024, 2048)
    assert estimate.find_gpu("cuda:1") == estimate.Gpu("NVIDIA X", 1 << 30, 2 << 30)
    assert "--id=1" in called.read_text()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    estimate.find_gpu("cuda:1")
    assert "--id=5" in called.read_text()
    assert estimate.find_gpu("cuda:2") is None
    nvidia_smi("[N/A]", 2048)
    assert estimate.find_gpu("cuda") is None
    nvidia_smi(1024, 2048, status=9)
    assert estimate.find_gpu("cuda") is None


def with_server(tmp_path, served, gpu, share, device="cuda"):
    """A models.toml with the shapes generator on a GPU and a server beside it."""
    python = tmp_path / "vllm-python"
    python.write_text("#!/bin/sh\necho 0.32.0")
    python.chmod(0o755)
    shipped = (ROOT / "models.toml").read_text()
    start = shipped.index("[generators.shapes]")
    generator = shipped[start : shipped.index("\n[", start + 1)].replace('"cpu"', f'"{device}"')
    file = tmp_path / "models.toml"
    file.write_text(
        f'default_profile = "p"\n[profiles.p]\ngenerator = "shapes"\nencoder = "t5"\n'
        f'verifier = "v"\ncaptioner = "v"\nproposer = "v"\ngpu = "{gpu}"\n'
        f'{generator}\n[encoders.t5]\npath = "builtin:shapes"\ndevice = "{device}"\n'
        f'[backends.v]\nkind = "vllm"\nmodel = "vlm"\n[backends.v.server]\n'
        f'model = "{served}"\npython = "{python}"\ngpu_memory_utilization = {share}\n'
    )
    return file


@pytest.mark.parametrize(
    ("gpu", "free", "level", "words"),
    [
        ("resident", 40_000, "ok", "the generator together with the servers"),
        ("resident", 20_000, "warning", "the generator together with the servers"),
        ("phased", 20_200, "ok", "a server, the larger of the two in turn"),
        ("phased", 10_000, "warning", "a server, the larger of the two in turn"),
    ],
)
def test_one_gpu_for_all(tmp_path, served, nvidia_smi, gpu, free, level, words):
    nvidia_smi(free, 40_000)
    code, report = doctor("--config", with_server(tmp_path, served, gpu, 0.5))
    assert code == 0, report
    (found,) = [one for one in report["findings"] if "estimate" in one["what"]]
    assert found["level"] == level
    assert words in found["what"]


def test_a_share_too_small_for_the_model(tmp_path, served, nvidia_smi):
    nvidia_smi(40_000, 40_000)
    _, report = doctor("--config", with_server(tmp_path, served, "phased", 0.01))
    assert any("gpu_memory_utilization = 0.01" in one["what"] for one in report["findings"])


@pytest.mark.parametrize(("device", "level"), [("cuda", "warning"), ("auto", "note")])
def test_no_gpu(tmp_path, served, nvidia_smi, device, level):
    _, report = doctor("--config", with_server(tmp_path, served, "resident", 0.5, device))
    found = [one for one in report["findings"] if "nvidia-smi" in one["what"]]
    assert [one["level"] for one in found] == [level]


def test_the_backends_of_a_profile_are_checked(tmp_path, served, nvidia_smi):
    file = with_server(tmp_path, served, "resident", 0.5)
    remove("preprocessor_config.json")(served)
    code, report = doctor("--config", file)
    assert code == 5
    assert any("image processor" in one["what"] for one in report["findings"])
    text = file.read_text()
    file.write_text(
        text[: text.index("[backends")] + '[backends.v]\nkind = "scripted"\nreplies = "r"'
    )
    code, report = doctor("--config", file)
    assert code == 2
    (tmp_path / "r").write_text("{}")
    assert doctor("--config", file)[0] == 0
