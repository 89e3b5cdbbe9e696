"""scripts/download_models.sh with stubs on PATH: order, resuming, gates, and the manifest last.

The stubs note each call in a file and make the files that the real programs would.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from npc_local.core.files.manifest import check_manifest, read_manifest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "download_models.sh"
COMMIT = "c0ffee" + "0" * 34
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
AGENT = "Qwen/Qwen3-VL-8B-Instruct"
PIPELINE = [
    "README.md",
    "LICENSE.md",
    "model_index.json",
    "sd_xl_base_1.0.safetensors",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/pytorch_model.bin",
    "text_encoder/model.onnx",
    "text_encoders/clip_g.safetensors",
    "tokenizer/vocab.json",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/deep/other.safetensors",
    "vae_1_0/diffusion_pytorch_model.safetensors",
    "image.png",
]
PIPELINE_TAKEN = {
    "README.md",
    "LICENSE.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/vocab.json",
    "unet/diffusion_pytorch_model.safetensors",
}
MODEL = [
    "config.json",
    "chat_template.jinja",
    "model-00001-of-00001.safetensors",
    "x/y.json",
    "a.pt",
]
MODEL_TAKEN = {"config.json", "chat_template.jinja", "model-00001-of-00001.safetensors"}

CURL = """\
#!/usr/bin/env bash
out='' url='' told='' continues=''
while [ $# -gt 0 ]; do
  case $1 in
    -o) out=$2; shift ;;
    --config) told=" with $(cat)"; shift ;;
    -C) continues=yes; shift ;;
    --retry | --retry-delay | -w) shift ;;
    -*) ;;
    *) url=$1 ;;
  esac
  shift
done
echo "curl $url" >>"$CALLS"
echo "$url$told" >>"$CALLS.told"
[ -z "${FAIL:-}" ] || [[ $url != *$FAIL* ]] || exit 22
if [ -n "$continues" ] && [ -n "${CODE:-}" ]; then printf '%s' "$CODE"; exit "$STATUS"; fi
case $url in
  */api/models/*/Qwen3-VL*) cat "$STUBS/model.json" ;;
  */api/models/*) cat "$STUBS/pipeline.json" ;;
  *) printf '%s' "$url" >"$out" ;;
esac
"""
HF = """\
#!/usr/bin/env bash
echo "hf $*" >>"$CALLS"
[ -z "${FAIL:-}" ] || [[ $2 != *$FAIL* ]] || exit 1
repo=$2 files=()
shift 2
while [ $# -gt 0 ]; do
  case $1 in
    --revision) shift ;;
    --local-dir) folder=$2; shift ;;
    *) files+=("$1") ;;
  esac
  shift
done
for file in "${files[@]}"; do
  mkdir -p "$(dirname "$folder/$file")"
  echo "$repo $file" >"$folder/$file"
done
"""
SHA256SUM = """\
#!/usr/bin/env bash
echo "sha256sum $1" >>"$CALLS"
[ -e "$MANIFEST" ] && echo "TOO EARLY" >>"$CALLS"
case $1 in
  *geneval_pp.jsonl) echo "9c1216a3f6fe2d99e4ffd63f3a6dba71f3dd7ab30a7c09cb41f03629b35d3e8f  $1" ;;
  *imagine_bench.jsonl)
    echo "${BENCH:-e22e33dd5e2722b9fedfb7ecddeb56841ec6ea93b3f0246a04d8dd374ab5a19e}  $1" ;;
  *en_core_web_sm*) echo "1932429db727d4bff3deed6b34cfc05df17794f4a52eeb26cf8928f7c1a0fb85  $1" ;;
  *) exec "$REAL_SHA256SUM" "$1" ;;
esac
"""
PYTHON = """\
#!/usr/bin/env bash
echo "python $*" >>"$CALLS"
while [ $# -gt 0 ]; do
  case $1 in
    --dest) mkdir -p "$2"; echo wheel >"$2/torch.whl" ;;
    --wheel-dir) mkdir -p "$2"; echo wheel >"$2/npc_local.whl" ;;
  esac
  shift
done
"""

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or shutil.which("bash") is None, reason="needs bash"
)


def answer(files):
    listed = ",".join(f'{{"rfilename":"{name}"}}' for name in files)
    return f'{{"_id":"1","sha":"{COMMIT}","siblings":[{listed}]}}'


class Run:
    """Calls of the script with stubs, in one target directory."""

    def __init__(self, tmp_path):
        self.stubs, self.to, self.calls_file = (
            tmp_path / "bin",
            tmp_path / "models",
            tmp_path / "calls",
        )
        self.stubs.mkdir()
        for name, text in {
            "curl": CURL,
            "hf": HF,
            "sha256sum": SHA256SUM,
            "python": PYTHON,
        }.items():
            self.stub(name, text)
        (self.stubs / "pipeline.json").write_text(answer(PIPELINE))
        (self.stubs / "model.json").write_text(answer(MODEL))
        self.manifest = self.to / "sdxl.sha256"
        self.environment = {
            "PATH": f"{self.stubs}{os.pathsep}/usr/bin{os.pathsep}/bin",
            "HOME": str(tmp_path / "home"),
            "CALLS": str(self.calls_file),
            "STUBS": str(self.stubs),
            "MANIFEST": str(self.manifest),
            "PYTHON": str(self.stubs / "python"),
            "REAL_SHA256SUM": shutil.which("sha256sum") or "",
            "HF_TOKEN": "hf_secret",
        }

    def stub(self, name, text):
        (self.stubs / name).write_text(text)
        (self.stubs / name).chmod(0o755)

    def __call__(self, *arguments, profile="sdxl", **environment):
        self.calls_file.write_text("")
        return subprocess.run(
            [str(SCRIPT), "--profile", profile, "--to", str(self.to), *arguments],
            capture_output=True,
            text=True,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
        )

    @property
    def calls(self):
        return self.calls_file.read_text().splitlines()


@pytest.fixture
def script(tmp_path):
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum")
    return Run(tmp_path)


def test_a_whole_download(script):
    done = script("--without-encoder")
    assert done.returncode == 0, done.stderr
    found = read_manifest(script.manifest)
    assert list(check_manifest(found)) == []
    assert {entry.path for entry in found.entries} == {
        *(f"stable-diffusion-xl-base-1.0/{name}" for name in PIPELINE_TAKEN),
        *(f"Qwen3-VL-8B-Instruct/{name}" for name in MODEL_TAKEN),
    }
    assert found.sources == (
        ("stable-diffusion-xl-base-1.0", SDXL, COMMIT),
        ("Qwen3-VL-8B-Instruct", AGENT, COMMIT),
    )
    kinds = [call.split()[0] for call in script.calls]
    assert kinds == ["curl", "hf", "curl", "hf"] + ["sha256sum"] * 11
    assert (
        f"/api/models/{SDXL}/revision/462165984030d82259a11f4367a4eed129e94a7b" in script.calls[0]
    )
    assert all(f"--revision {COMMIT}" in call for call in script.calls if call.startswith("hf"))
    assert "TOO EARLY" not in script.calls
    assert not list(script.to.glob(".manifest.*"))


def test_the_encoder_that_a_model_without_t5_borrows(script):
    (script.stubs / "pipeline.json").write_text(
        answer(["text_encoder_2/model.safetensors", "transformer/x.safetensors", "unet/a.json"])
    )
    done = script("--agents", "none")
    assert done.returncode == 0, done.stderr
    fetched = {entry.path for entry in read_manifest(script.manifest).entries}
    assert "FLUX.1-dev/text_encoder_2/model.safetensors" in fetched
    assert not [path for path in fetched if "transformer" in path]


@pytest.mark.parametrize("broken", [SDXL, AGENT, f"/api/models/{AGENT}"])
def test_a_failure_leaves_no_manifest_and_the_next_run_completes(script, broken):
    first = script("--without-encoder", FAIL=broken)
    assert first.returncode == 1
    assert "again" in first.stderr or "no answer" in first.stderr
    assert not script.manifest.exists()
    assert not list(script.to.glob(".manifest.*"))
    assert script("--without-encoder").returncode == 0
    assert list(check_manifest(read_manifest(script.manifest))) == []


def test_a_new_run_takes_the_old_manifest_away_first(script):
    assert script("--without-encoder").returncode == 0
    assert script("--without-encoder", FAIL=AGENT).returncode == 1
    assert not script.manifest.exists()


def test_without_hf_curl_continues_and_keeps_what_is_whole(script):
    (script.stubs / "hf").unlink()
    first = script("--without-encoder", FAIL="unet/diffusion")
    assert first.returncode == 1
    assert "diffusion_pytorch_model.safetensors could not be fetched" in first.stderr
    second = script("--without-encoder")
    assert second.returncode == 0, second.stderr
    fetched = [call for call in script.calls if f"/{SDXL}/resolve/" in call]
    assert [call.rsplit("/", 2)[1:] for call in fetched] == [
        ["unet", "diffusion_pytorch_model.safetensors"]
    ]
    assert list(check_manifest(read_manifest(script.manifest))) == []


def test_a_failure_keeps_what_is_there_to_continue(script):
    (script.stubs / "hf").unlink()
    part = script.to / "stable-diffusion-xl-base-1.0/unet/diffusion_pytorch_model.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_text("most of it")
    assert script("--without-encoder", FAIL="unet/diffusion").returncode == 1
    assert part.read_text() == "most of it"
    assert sum("unet/diffusion" in call for call in script.calls) == 1


@pytest.mark.parametrize(("code", "status"), [("416", "22"), ("200", "33")])
def test_a_file_that_cannot_be_continued_is_begun_again(script, code, status):
    """As older versions of curl say it of a file that is whole."""
    (script.stubs / "hf").unlink()
    done = script("--without-encoder", CODE=code, STATUS=status)
    assert done.returncode == 0, done.stderr
    assert list(check_manifest(read_manifest(script.manifest))) == []


def test_two_commits_are_never_mixed(script):
    assert script("--without-encoder").returncode == 0
    (script.stubs / "pipeline.json").write_text(answer(PIPELINE).replace(COMMIT, "d" * 40))
    again = script("--without-encoder")
    assert again.returncode == 1
    assert f"holds commit {COMMIT}" in again.stderr
    assert f"--revision {SDXL}={COMMIT}" in again.stderr


def test_a_gated_repository_without_a_token(script):
    done = script(profile="flux-dev", HF_TOKEN="")
    assert done.returncode == 3
    assert "accept the FLUX.1 [dev] Non-Commercial License" in done.stderr
    assert "hf auth login" in done.stderr
    assert script.calls == []
    assert not script.to.exists()


def test_a_token_that_is_not_accepted_explains_the_gate(script):
    done = script(profile="sd35-large", FAIL="stable-diffusion-3.5")
    assert done.returncode == 1
    assert "accept the Stability AI Community License" in done.stderr


def test_the_token_goes_to_the_hub_alone_and_never_on_a_command_line(script):
    done = script("--without-encoder", "--spacy")
    assert done.returncode == 0, done.stderr
    assert "hf_secret" not in "\n".join(script.calls) + done.stdout + done.stderr
    messages = Path(f"{script.calls_file}.told").read_text().splitlines()
    assert len(messages) == 3
    for line in messages:
        asks_hub = line.startswith("https://huggingface.co/")
        assert line.endswith('with header = "Authorization: Bearer hf_secret"') == asks_hub


def test_a_kept_login_counts_as_a_token(script, tmp_path):
    kept = tmp_path / "home" / ".cache" / "huggingface" / "token"
    kept.parent.mkdir(parents=True)
    kept.write_text("hf_kept\n")
    (script.stubs / "pipeline.json").write_text(answer(["transformer/config.json"]))
    assert script("--agents", "none", profile="flux-dev", HF_TOKEN="").returncode == 0


def test_a_dry_run_writes_and_fetches_nothing(script):
    done = script("--dry-run", "--benchmarks", "--spacy", "--wheels", HF_TOKEN="")
    assert done.returncode == 0
    for part in (SDXL, AGENT, "FLUX.1-dev", "Echo-4o", "en_core_web_sm", "about 42 GB"):
        assert part in done.stdout
    assert "approximate" in done.stdout
    assert script.calls == []
    assert not script.to.exists()


def test_extras_are_in_the_manifest(script):
    done = script("--without-encoder", "--benchmarks", "--spacy", "--wheels")
    assert done.returncode == 0, done.stderr
    listed = script.manifest.read_text()
    for name in ("benchmarks/geneval_pp.jsonl", "wheels/torch.whl", "wheels/npc_local.whl"):
        assert f"  {name}\n" in listed
    assert "wheels/en_core_web_sm" in listed
    pip = [call for call in script.calls if call.startswith("python")]
    assert f"--requirement {ROOT / 'constraints.txt'}" in pip[0]
    assert pip[1].endswith(str(ROOT))


def test_benchmark_files_with_another_content_are_refused(script):
    done = script("--without-encoder", "--benchmarks", BENCH="0" * 64)
    assert done.returncode == 1
    assert "imagine_bench.jsonl: its SHA-256" in done.stderr
    assert not (script.to / "benchmarks" / "imagine_bench.jsonl").exists()
    assert not script.manifest.exists()


def test_a_revision_of_the_users_own(script):
    done = script("--without-encoder", "--revision", f"{SDXL}=main")
    assert done.returncode == 0, done.stderr
    assert script.calls[0].endswith(f"/api/models/{SDXL}/revision/main")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--profile", "nope", "--to", "x"],
            "unknown profile nope; known: flux-dev sd35-large sdxl",
        ),
        (["--to", "x"], "--profile is missing; known: flux-dev"),
        (["--profile", "sdxl"], "--to DIR is missing"),
        (["--profile", "sdxl", "--to", "x", "--agents", "gpt"], "known: qwen3-vl-8b"),
        (["--profile", "sdxl", "--to", "x", "--revision", "one"], "OWNER/NAME=COMMIT"),
        (["--profile", "sdxl", "--to", "x", "--revision", "a/b=c"], "not among the repositories"),
        (["--profile", "sdxl", "--too", "x"], "unknown argument --too"),
        (["--profile"], "--profile needs a value"),
    ],
)
def test_wrong_arguments(arguments, message, tmp_path):
    run = subprocess.run([str(SCRIPT), *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 2
    assert message in run.stderr
    assert list(tmp_path.iterdir()) == []


class _Hub(http.server.BaseHTTPRequestHandler):
    """As much of a hub as curl and hf see: a listing, and files that can be continued."""

    seen: list[tuple[str, str | None, str | None]]
    files = ("vae/config.json", "vae/diffusion_pytorch_model.safetensors")

    def do_GET(self):
        wanted, key = self.headers.get("Range"), self.headers.get("Authorization")
        self.seen.append((self.path, wanted, key))
        body = b"0123456789"
        if "/tree/" in self.path:
            entry = {"type": "file", "size": len(body), "oid": "a" * 40}
            body = json.dumps([{**entry, "path": name} for name in self.files]).encode()
        elif self.path.startswith("/api/"):
            body = answer(self.files).encode()
        start = int(wanted[6:].split("-")[0]) if wanted else 0
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[start:])

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    """A hub on this machine; its class holds what it has seen."""
    kind = type("Hub", (_Hub,), {"seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def fetch_from(hub, tmp_path, path="/usr/bin:/bin"):
    """Run the script with real programs; return where the weights should be."""
    to = tmp_path / "models"
    chosen = ["--profile", "z-image", "--agents", "none", "--without-encoder", "--to", str(to)]
    done = subprocess.run(
        [str(SCRIPT), *chosen],
        capture_output=True,
        text=True,
        env={
            "PATH": path,
            "HOME": str(tmp_path),
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_TOKEN": "hf_secret",
        },
    )
    assert done.returncode == 0, done.stderr
    assert list(check_manifest(read_manifest(to / "z-image.sha256"))) == []
    return to / "Z-Image" / "vae" / "diffusion_pytorch_model.safetensors"


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
@pytest.mark.parametrize("part", [b"0123", b"0123456789"])
def test_the_real_curl_continues_a_file(hub, tmp_path, part):
    """Also one that was whole but not yet renamed, which a server refuses to continue."""
    weights = tmp_path / "models" / "Z-Image" / "vae" / "diffusion_pytorch_model.safetensors"
    weights.parent.mkdir(parents=True)
    Path(f"{weights}.part").write_bytes(part)
    assert fetch_from(hub, tmp_path) == weights
    assert weights.read_bytes() == b"0123456789"
    seen = hub.RequestHandlerClass.seen
    assert f"bytes={len(part)}-" in [wanted for _, wanted, _ in seen]
    assert {key for _, _, key in seen} == {"Bearer hf_secret"}


def test_the_real_hf_takes_what_the_script_says(hub, tmp_path):
    program = shutil.which("hf", path=os.path.dirname(sys.executable))
    if program is None or shutil.which("curl") is None:
        pytest.skip("no hf, or no curl")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "hf").symlink_to(program)
    weights = fetch_from(hub, tmp_path, f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert weights.read_bytes() == b"0123456789"
    assert (weights.parents[1] / ".cache" / "huggingface").is_dir()  # hf's own, not listed
    paths = [path for path, _, _ in hub.RequestHandlerClass.seen]
    assert f"/Tongyi-MAI/Z-Image/resolve/{COMMIT}/vae/config.json" in paths


def test_the_folders_are_those_of_models_toml():
    shipped = (ROOT / "models.toml").read_text()
    wanted = set(re.findall(r'^(?:path|model) = "models/([^"]+)"', shipped, re.MULTILINE))
    table = SCRIPT.read_text().split("REPOSITORIES='", 1)[1].split("'", 1)[0]
    rows = [line.split("|") for line in table.strip().splitlines()]
    assert wanted <= {row[0] for row in rows}
    assert all(len(row) == 6 and re.fullmatch("main|[0-9a-f]{40}", row[2]) for row in rows)


def test_shellcheck_is_content():
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("no shellcheck")
    run = subprocess.run([program, str(SCRIPT)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
