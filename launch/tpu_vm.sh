#!/usr/bin/env bash
# A sweep on a TPU VM or a slice of several hosts, which survives pre-emption.
#
#   ./launch/tpu_vm.sh --name=grid --zone=us-central2-b --type=v4-32 -- \
#     --config=configs/quickstart.py --workdir=gs://my-bucket/runs/quickstart
#   ./launch/tpu_vm.sh --dry-run ...                        # shows every gcloud call, makes none
#   ./launch/tpu_vm.sh --delete --name=grid --zone=...      # gives the machine back
#
# Creates a queued resource, installs this commit on all hosts, starts chinchilla_jax.sweep with
# the flags after --, follows its log and deletes the machine when the sweep is over. Pre-empted,
# it is created again, and the sweep goes on from what is in the bucket. Stopped with Ctrl-C, the
# sweep goes on; the same command follows it again. Of a slice's hosts all train a cell together.
#
# --name, --zone, --type (an accelerator type: v5litepod-8, v4-32, v6e-16) are needed; further
#   --version=V     runtime version (v2-alpha-tpuv5-lite, tpu-ubuntu2204-base, v2-alpha-tpuv6e, ...;
#                   the default goes with the type)
#   --project=P     else gcloud's own
#   --on-demand     not --spot
#   --keep          do not delete it at the end
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

poll=${POLL_SECONDS:-20}
name='' zone='' type='' version='' project='' spot=--spot keep='' dry='' action=run
flags=()

fail() {
  echo "error: $*" >&2
  exit 2
}

while (($#)); do
  case $1 in
    -h | --help) # the comment above
      sed -n '2,/^set/s/^# \{0,1\}//p' launch/tpu_vm.sh
      exit
      ;;
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --on-demand) spot='' ;;
    --keep) keep=yes ;;
    --dry-run) dry=yes ;;
    --delete) action=delete ;;
    --)
      flags=("${@:2}")
      break
      ;;
    *) fail "$1: unexpected; flags of the sweep come after --" ;;
  esac
  shift
done
[[ -n $name ]] || fail "--name: is required, a name for the machine"
[[ -n $zone ]] || fail "--zone: is required, for example us-central2-b"
[[ -n $dry ]] || command -v gcloud >/dev/null || fail "gcloud: not found; install the Google Cloud CLI, or look with --dry-run"

place=("--zone=$zone" ${project:+"--project=$project"})

# Shows a gcloud call, and makes it unless this is a dry run.
cloud() {
  printf '+ gcloud compute tpus' >&2
  printf ' %q' "$@" >&2
  printf '\n' >&2
  if [[ -z $dry ]]; then gcloud compute tpus "$@"; fi
}

# On one host (0) or on all: runs launch/tpu_host.sh there.
host() {
  local worker=$1 command
  printf -v command ' %q' bash chinchilla_jax/launch/tpu_host.sh "${@:2}"
  cloud tpu-vm ssh "$name" "${place[@]}" "--worker=$worker" "--command=${command# }"
}

delete() { cloud queued-resources delete "$name" "${place[@]}" --force --quiet; }

# ACTIVE, WAITING_FOR_RESOURCES, SUSPENDED, ...; NONE where there is no such resource, UNKNOWN
# where gcloud cannot tell.
state() {
  local answer
  if answer=$(cloud queued-resources describe "$name" "${place[@]}" '--format=value(state.state)' 2>&1); then
    grep -v '^+ ' <<<"$answer" || true
  elif [[ $answer == *NOT_FOUND* ]]; then
    echo NONE
  else
    echo "$answer" >&2
    echo UNKNOWN
  fi
}

create() {
  cloud queued-resources create "$name" "--node-id=$name" "${place[@]}" \
    "--accelerator-type=$type" "--runtime-version=$version" ${spot:+"$spot"}
}

# Returns when the machine is there, created anew if it was pre-empted.
ensure_active() {
  local now before='' unknown=0
  while true; do
    now=$(state)
    if [[ $now != "$before" ]]; then echo "$name: $now" >&2; fi
    before=$now
    case $now in
      ACTIVE) return ;;
      NONE) create ;;
      FAILED | SUSPENDING | SUSPENDED)
        delete
        create
        ;;
      UNKNOWN)
        if ((++unknown == 10)); then fail "$name: gcloud does not tell its state; see above"; fi
        sleep "$poll"
        ;;
      *) sleep "$poll" ;; # it waits, is being made or is being deleted
    esac
  done
}

install() {
  local archive
  archive=$(mktemp --suffix=.tar.gz)
  git archive --prefix=chinchilla_jax/ --output="$archive" HEAD || fail "no commit to install"
  cloud tpu-vm scp "$archive" "$name:chinchilla_jax.tar.gz" "${place[@]}" --worker=all &&
    cloud tpu-vm ssh "$name" "${place[@]}" --worker=all --command='tar -xzf chinchilla_jax.tar.gz' &&
    host all install
  local status=$?
  rm -f "$archive"
  return "$status"
}

if [[ $action == delete ]]; then
  delete
  exit
fi
[[ -n $type ]] || fail "--type: is required, an accelerator type such as v5litepod-8"
((${#flags[@]})) || fail "the sweep's own flags are missing: ... -- --config=FILE --workdir=gs://BUCKET/FOLDER"
[[ " ${flags[*]}" == *" --workdir=gs://"* ]] ||
  fail "--workdir: must be in a bucket, gs://..., since the machine may go at any time"
if [[ -z $version ]]; then
  case $type in
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    *) version=tpu-ubuntu2204-base ;;
  esac
fi

trap 'echo "stopped following; the sweep goes on. The same command follows it again; --delete ends it" >&2; exit 130' INT
if [[ -n $dry ]]; then
  create
  cloud queued-resources describe "$name" "${place[@]}" '--format=value(state.state)'
  ensure_active() { :; }
fi
failures=0
while true; do
  ensure_active
  status=''
  if install && host all start "${flags[@]}"; then
    failures=0
    host 0 follow || true
    status=$(cloud tpu-vm ssh "$name" "${place[@]}" --worker=0 --command='cat chinchilla_jax/sweep.status' || true)
  fi
  if [[ -n $dry ]]; then status=0; fi
  if ((failures++ == 5)); then fail "$name: cannot be installed on or started; see above, and --delete it"; fi
  case $status in
    0 | 1 | 2) break ;; # over; some cells failed; a mistake in the call
  esac
  echo "$name: the sweep was interrupted (status ${status:-unknown}); looking after the machine" >&2
  sleep "$poll"
done
if [[ -z $keep ]]; then delete; fi
exit "$status"
