#!/usr/bin/env bash
# Fetches, on a machine with a network, what a profile of npc-local needs on one without.
#
#   scripts/download_models.sh --profile flux-dev --to models
#
# Each repository is fetched at one commit, by `hf` (huggingface_hub's command) where it is installed,
# else by curl. Run it again after a failure and it continues. The manifest, with the SHA-256 of
# every file, is written last: where it is, the download is whole. On the other machine,
# `npc-local doctor --manifest models/flux-dev.sha256` compares. See docs/guides/offline.md.
# Runs with bash 3.2 (macOS) and newer.
set -euo pipefail

HUB=${HF_ENDPOINT:-https://huggingface.co}
GITHUB=https://github.com
GITHUB_RAW=https://raw.githubusercontent.com

# folder | repository | commit | gated licence | GB, about | subfolders that are fetched; none: all
# The commits are those that public projects record for these repositories; "main" means none known.
# --revision REPO=COMMIT takes another. What was fetched is in the manifest.
REPOSITORIES='
FLUX.1-dev|black-forest-labs/FLUX.1-dev|3de623fc3c33e44ffbe2bad470d0f45bccf2eb21|FLUX.1 [dev] Non-Commercial License|34|scheduler text_encoder text_encoder_2 tokenizer tokenizer_2 transformer vae
stable-diffusion-3.5-large|stabilityai/stable-diffusion-3.5-large|ceddf0a7fdf2064ea28e2213e3b84e4afa170a0f|Stability AI Community License|28|scheduler text_encoder text_encoder_2 text_encoder_3 tokenizer tokenizer_2 tokenizer_3 transformer vae
stable-diffusion-xl-base-1.0|stabilityai/stable-diffusion-xl-base-1.0|462165984030d82259a11f4367a4eed129e94a7b||14|scheduler text_encoder text_encoder_2 tokenizer tokenizer_2 unet vae
Qwen-Image|Qwen/Qwen-Image|75e0b4be04f60ec59a75f475837eced720f823b6||58|scheduler text_encoder tokenizer transformer vae
Z-Image|Tongyi-MAI/Z-Image|04cc4abb7c5069926f75c9bfde9ef43d49423021||21|scheduler text_encoder tokenizer transformer vae
Qwen3-VL-8B-Instruct|Qwen/Qwen3-VL-8B-Instruct|0c351dd01ed87e9c1b53cbc748cba10e6187ff3b||18|
Qwen2.5-VL-7B-Instruct|Qwen/Qwen2.5-VL-7B-Instruct|cc594898137f460bfe9f0759e9844b3ce807cfb5||17|
'
PROFILES='flux-dev sd35-large sdxl qwen-image z-image'
AGENTS='qwen3-vl-8b qwen2.5-vl-7b none'
# What ranks the negatives is a T5; models that have none borrow FLUX.1-dev's, these folders of it.
ENCODER_FOLDERS='text_encoder_2 tokenizer_2'
ENCODER_GB=10

SPACY_WHEEL=en_core_web_sm-3.8.0-py3-none-any.whl
SPACY_SHA256=1932429db727d4bff3deed6b34cfc05df17794f4a52eeb26cf8928f7c1a0fb85
SPACY_URL=$GITHUB/explosion/spacy-models/releases/download/en_core_web_sm-3.8.0/$SPACY_WHEEL

# Prompts of GenEval++ and Imagine-Bench, as published with Echo-4o (Apache-2.0).
BENCHMARKS_REPO=yejy53/Echo-4o
BENCHMARKS_COMMIT=28f36d7
BENCHMARKS='
geneval_pp.jsonl|test_scripts/Geneval%2B%2B.jsonl|9c1216a3f6fe2d99e4ffd63f3a6dba71f3dd7ab30a7c09cb41f03629b35d3e8f
imagine_bench.jsonl|test_scripts/Imagine.jsonl|e22e33dd5e2722b9fedfb7ecddeb56841ec6ea93b3f0246a04d8dd374ab5a19e
'

usage() {
  cat <<USAGE
usage: scripts/download_models.sh --profile NAME --to DIR [options]

  --profile NAME        one of: $PROFILES
  --to DIR              where the model directories go; models.toml expects ./models
  --agents NAME         the vision-language model: $AGENTS  [default: qwen3-vl-8b]
  --without-encoder     leave out the T5 of FLUX.1-dev that sdxl, qwen-image and z-image borrow
  --revision REPO=REV   another commit (or branch) of a repository; may be repeated
  --benchmarks          also the prompts of GenEval++ and Imagine-Bench
  --spacy               also the wheel of spaCy's English model
  --wheels              also the Python packages, for this machine's system and Python version;
                        PYTHON=... names the interpreter
  --dry-run             print what would be fetched, and write nothing

Gated repositories need a token: HF_TOKEN, or the one that \`hf auth login\` keeps.
USAGE
}

tell() { printf '%s\n' "$*"; }
say() { tell "$*" >&2; }
fail() {
  say "error: $1"
  exit "${2:-1}"
}

# ---- Arguments ----------------------------------------------------------------------------------

profile='' to='' agents=qwen3-vl-8b encoder=yes revisions='' benchmarks='' spacy='' wheels='' dry=''
while [ $# -gt 0 ]; do
  case $1 in
    --profile | --to | --agents | --revision)
      [ $# -ge 2 ] || fail "$1 needs a value" 2
      case $1 in
        --profile) profile=$2 ;;
        --to) to=$2 ;;
        --agents) agents=$2 ;;
        --revision)
          [[ $2 == */*=?* ]] || fail "--revision $2: write it as OWNER/NAME=COMMIT" 2
          revisions="$revisions$2"$'\n'
          ;;
      esac
      shift
      ;;
    --without-encoder) encoder='' ;;
    --benchmarks) benchmarks=yes ;;
    --spacy) spacy=yes ;;
    --wheels) wheels=yes ;;
    --dry-run) dry=yes ;;
    -h | --help)
      usage
      exit 0
      ;;
    *) fail "unknown argument $1; see --help" 2 ;;
  esac
  shift
done

one_of() { # NAME LIST: whether the space-separated list has the name
  case " $2 " in *" $1 "*) return 0 ;; *) return 1 ;; esac
}
[ -n "$profile" ] || fail "--profile is missing; known: $PROFILES" 2
one_of "$profile" "$PROFILES" || fail "unknown profile $profile; known: $PROFILES" 2
one_of "$agents" "$AGENTS" || fail "unknown agents $agents; known: $AGENTS" 2
[ -n "$to" ] || fail "--to DIR is missing" 2

# ---- What is to be fetched ----------------------------------------------------------------------

row() { # FOLDER: its line of the table
  printf '%s' "$REPOSITORIES" | grep "^$1|"
}
plan=''
add() { plan="$plan$1"$'\n'; }
case $profile in
  flux-dev) add "$(row FLUX.1-dev)" ;;
  sd35-large) add "$(row stable-diffusion-3.5-large)" ;;
  sdxl) add "$(row stable-diffusion-xl-base-1.0)" ;;
  qwen-image) add "$(row Qwen-Image)" ;;
  z-image) add "$(row Z-Image)" ;;
esac
if [ -n "$encoder" ] && one_of "$profile" 'sdxl qwen-image z-image'; then
  IFS='|' read -r folder repo commit licence _ _ <<<"$(row FLUX.1-dev)"
  add "$folder|$repo|$commit|$licence|$ENCODER_GB|$ENCODER_FOLDERS"
fi
case $agents in
  qwen3-vl-8b) add "$(row Qwen3-VL-8B-Instruct)" ;;
  qwen2.5-vl-7b) add "$(row Qwen2.5-VL-7B-Instruct)" ;;
esac

revision_of() { # REPO DEFAULT: the last --revision for the repository, or the default
  local found=$2 line
  while IFS= read -r line; do
    [ "${line%%=*}" = "$1" ] && found=${line#*=}
  done <<<"$revisions"
  printf '%s' "$found"
}
while IFS= read -r line; do
  [ -z "$line" ] || [[ $plan == *"|${line%%=*}|"* ]] ||
    fail "--revision ${line%%=*}: not among the repositories of this download" 2
done <<<"$revisions"

total=0
while IFS='|' read -r folder repo commit licence size folders; do
  [ -n "$repo" ] || continue
  total=$((total + size))
  tell "$repo at $(revision_of "$repo" "$commit") -> $to/$folder, about $size GB${folders:+ ($folders)}"
  [ -z "$licence" ] || tell "  gated: accept the $licence at $HUB/$repo"
done <<<"$plan"
[ -z "$benchmarks" ] || tell "$BENCHMARKS_REPO at $BENCHMARKS_COMMIT -> $to/benchmarks, below 1 MB"
[ -z "$spacy" ] || tell "$SPACY_WHEEL -> $to/wheels, 13 MB"
[ -z "$wheels" ] || tell "Python packages of constraints.txt, and npc-local -> $to/wheels, up to about 4 GB"
tell "together about $total GB (sizes are approximate)"
if [ -n "$dry" ]; then
  tell "dry run: nothing was fetched or written"
  exit 0
fi

# ---- Tools --------------------------------------------------------------------------------------

command -v curl >/dev/null || fail "curl is needed"
if command -v sha256sum >/dev/null; then
  sha256() { sha256sum "$1" | cut -d' ' -f1; }
elif command -v shasum >/dev/null; then
  sha256() { shasum -a 256 "$1" | cut -d' ' -f1; }
else
  fail "sha256sum or shasum is needed"
fi

token=${HF_TOKEN:-}
token_file=${HF_TOKEN_PATH:-${HF_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/huggingface}/token}
if [ -z "$token" ] && [ -r "$token_file" ]; then token=$(tr -d '[:space:]' <"$token_file"); fi

get() { # URL, further arguments of curl; the token goes through a pipe, not the command line
  local url=$1
  shift
  if [ -n "$token" ] && [[ $url == "$HUB"/* ]]; then
    printf 'header = "Authorization: Bearer %s"\n' "$token" |
      curl -fsSL --retry 5 --retry-delay 2 --config - "$@" "$url"
  else
    curl -fsSL --retry 5 --retry-delay 2 "$@" "$url"
  fi
}

get_file() { # URL FILE: continues FILE.part, and FILE appears only whole
  local code status=0
  [ ! -e "$2" ] || return 0
  mkdir -p "$(dirname "$2")"
  code=$(get "$1" -C - -o "$2.part" -w '%{http_code}') || status=$?
  if [ "$status" -ne 0 ]; then
    # Once more from the start, but only if there is nothing to continue, or the server cannot (33).
    [ "$code" = 416 ] || [ "$status" -eq 33 ] || return 1
    get "$1" -o "$2.part" || return 1
  fi
  mv "$2.part" "$2"
}

check_sha256() { # FILE EXPECTED
  [ "$(sha256 "$1")" = "$2" ] && return 0
  rm -f "$1"
  fail "$(basename "$1"): its SHA-256 is not the expected $2; it was deleted"
}

gated() { # REPO LICENCE
  say "$1 is gated. With an account of $HUB,"
  say "  1. accept the $2 at $HUB/$1"
  say "  2. make a token at $HUB/settings/tokens and run 'hf auth login', or set HF_TOKEN"
  say "  3. run this script again"
}

while IFS='|' read -r folder repo commit licence _ _; do
  if [ -n "$licence" ] && [ -z "$token" ]; then
    gated "$repo" "$licence"
    fail "no token for $repo; nothing was fetched" 3
  fi
done <<<"$plan"

# ---- Fetching -----------------------------------------------------------------------------------

wanted() { # FILE FOLDERS: safetensors and texts; no pickles, other formats, variants, single files
  case $1 in
    *.fp16.* | *.fp8.* | *.bf16.* | *..* | /* | *\\*) return 1 ;;
    *.safetensors | *.json | *.txt | *.model | *.jinja | *.md | LICENSE*) ;;
    *) return 1 ;;
  esac
  if [ -z "$2" ]; then
    [[ $1 != */* ]] # one model: all of it lies at the top
  elif [[ $1 == */* ]]; then
    one_of "${1%%/*}" "$2" && [[ ${1#*/} != */* ]]
  else
    [[ $1 != *.safetensors ]] # at the top of a pipeline: the same weights once more
  fi
}

fetch() { # FOLDER REPO REVISION LICENCE FOLDERS
  local folder=$1 repo=$2 revision=$3 licence=$4 folders=$5 answer commit file
  local files=()
  if ! answer=$(get "$HUB/api/models/$repo/revision/$revision"); then
    [ -z "$licence" ] || gated "$repo" "$licence"
    fail "$repo: no answer about revision $revision"
  fi
  commit=$(grep -oE '"sha": ?"[0-9a-f]{40}"' <<<"$answer" | head -n 1 | grep -oE '[0-9a-f]{40}') ||
    fail "$repo: the answer of $HUB names no commit"
  while IFS= read -r file; do
    if wanted "$file" "$folders"; then files+=("$file"); fi
  done < <(grep -oE '"rfilename": ?"[^"]+"' <<<"$answer" | sed -E 's/^"rfilename": ?"//; s/"$//')
  [ ${#files[@]} -gt 0 ] || fail "$repo: revision $revision has none of the files expected"
  say "$repo: ${#files[@]} files at $commit"
  # curl skips files that are there, so those of another commit must not stay. hf compares itself.
  if [ -f "$to/$folder/.npc-commit" ] && [ "$(cat "$to/$folder/.npc-commit")" != "$commit" ]; then
    fail "$to/$folder holds commit $(cat "$to/$folder/.npc-commit"); name another --to, delete it, or add --revision $repo=$(cat "$to/$folder/.npc-commit")"
  fi
  mkdir -p "$to/$folder"
  printf '%s\n' "$commit" >"$to/$folder/.npc-commit"
  if command -v hf >/dev/null; then
    if ! hf download "$repo" "${files[@]}" --revision "$commit" --local-dir "$to/$folder" >/dev/null; then
      [ -z "$licence" ] || gated "$repo" "$licence"
      fail "$repo: the download failed; run this script again to continue"
    fi
  else
    for file in "${files[@]}"; do
      say "  $file"
      if ! get_file "$HUB/$repo/resolve/$commit/$file" "$to/$folder/$file"; then
        [ -z "$licence" ] || gated "$repo" "$licence"
        fail "$repo: $file could not be fetched; run this script again to continue"
      fi
    done
  fi
  for file in "${files[@]}"; do
    [ -s "$to/$folder/$file" ] || fail "$repo: $file is missing or empty after the download"
    printf '%s\n' "$folder/$file" >>"$listing"
  done
  printf '# source %s %s %s\n' "$folder" "$repo" "$commit" >>"$sources"
}

mkdir -p "$to"
manifest=$to/$profile.sha256
# Of an earlier, complete run: what it says may not hold in a moment.
rm -f "$manifest"
scratch=$(mktemp -d "$to/.manifest.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
listing=$scratch/listing sources=$scratch/sources
: >"$listing"
: >"$sources"

while IFS='|' read -r folder repo commit licence _ folders <&3; do
  [ -n "$repo" ] || continue
  fetch "$folder" "$repo" "$(revision_of "$repo" "$commit")" "$licence" "$folders"
done 3<<<"$plan"

if [ -n "$benchmarks" ]; then
  while IFS='|' read -r name path expected <&3; do
    [ -n "$name" ] || continue
    get_file "$GITHUB_RAW/$BENCHMARKS_REPO/$BENCHMARKS_COMMIT/$path" "$to/benchmarks/$name" ||
      fail "$name could not be fetched; run this script again to continue"
    check_sha256 "$to/benchmarks/$name" "$expected"
    printf 'benchmarks/%s\n' "$name" >>"$listing"
  done 3<<<"$BENCHMARKS"
  printf '# source benchmarks %s %s\n' "$BENCHMARKS_REPO" "$BENCHMARKS_COMMIT" >>"$sources"
fi

if [ -n "$spacy" ]; then
  get_file "$SPACY_URL" "$to/wheels/$SPACY_WHEEL" || fail "$SPACY_WHEEL could not be fetched"
  check_sha256 "$to/wheels/$SPACY_WHEEL" "$SPACY_SHA256"
fi
if [ -n "$wheels" ]; then
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  python=${PYTHON:-python3}
  "$python" -m pip download --dest "$to/wheels" --requirement "$root/constraints.txt" ||
    fail "pip could not fetch the packages; run this script again to continue"
  "$python" -m pip wheel --no-deps --wheel-dir "$to/wheels" "$root" ||
    fail "pip could not build the wheel of npc-local"
fi
if [ -n "$spacy$wheels" ]; then
  for file in "$to"/wheels/*; do
    printf 'wheels/%s\n' "$(basename "$file")" >>"$listing"
  done
fi

# ---- The manifest, last -------------------------------------------------------------------------

say "computing SHA-256"
draft=$scratch/manifest count=0
printf '# npc-local manifest 1\n' >"$draft"
cat "$sources" >>"$draft"
while IFS= read -r file <&3; do
  printf '# size %s %s\n%s  %s\n' \
    "$(($(wc -c <"$to/$file")))" "$file" "$(sha256 "$to/$file")" "$file" >>"$draft"
  count=$((count + 1))
done 3< <(sort -u "$listing")
printf '# end %s files\n' "$count" >>"$draft"
mv "$draft" "$manifest"
say "done: $count files, $manifest"
say "after carrying $to over: npc-local doctor --manifest $manifest"
