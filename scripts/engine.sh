#!/usr/bin/env bash
# Makes sure a Docker engine answers, with compose v2 and buildx, from the distribution's packages.
#   engine.sh         install and start what is missing (nothing, when all of it is there)
#   engine.sh stop    stop the engine, if this script started it
# Exit: 0 it is there; 3 this machine cannot, and what to install; 1 it was installed but does not start.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/lib.sh
. ./lib.sh

readonly COMPOSE_MINIMUM=2.24.4 # `!override` and `!reset` in merged files
readonly MARKER=${ENGINE_MARKER:-/run/vaultcube-engine.pid} # pid of a dockerd, or "systemd", that this script started
readonly LOG=/var/log/vaultcube-dockerd.log
readonly START_LIMIT_S=60

# Debian 12's own docker.io is 20.10 and has no compose v2: take these from the release after it.
readonly NEWER=trixie

compose_version() { docker compose version --short 2>/dev/null || true; }

has_compose() {
    local version
    version=$(compose_version)
    [ -n "$version" ] && version_at_least "$version" "$COMPOSE_MINIMUM"
}

has_buildx() { docker buildx version >/dev/null 2>&1; }

# missing_packages: names to install, one a line; nothing when every part is there.
missing_packages() {
    local kind=$1 compose=docker-compose buildx=docker-buildx
    [ "$kind" != ubuntu ] || compose=docker-compose-v2
    if dpkg-query -W -f '${Status}' docker-ce 2>/dev/null | grep -q 'ok installed'; then
        # Docker's own packages are here: the distribution's would collide with them.
        compose=docker-compose-plugin buildx=docker-buildx-plugin
    fi
    if ! engine_answers && ! command -v dockerd >/dev/null 2>&1; then
        engine_packages "$kind" | tr ' ' '\n'
        # A kernel with AppArmor on cannot start a container without its parser.
        if [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ]; then echo apparmor; fi
        return
    fi
    if ! command -v docker >/dev/null 2>&1; then
        if [ "$kind" = ubuntu ]; then echo docker.io; else echo docker-cli; fi
    fi
    has_compose || echo "$compose"
    has_buildx || echo "$buildx"
}

refuse_without_root() {
    local kind=$1
    shift
    local how="sudo apt-get install $*"
    [ "$kind" != debian12 ] || how="with $NEWER sources added: sudo apt-get install ${*/%//$NEWER}"
    die "$EXIT_REFUSED" "the Docker engine needs packages, and this user is neither root nor allowed to sudo" \
        "ask an administrator to run: $how" "then run this again"
}

refuse_other_system() {
    die "$EXIT_REFUSED" "no working Docker engine, and $(os_name) is not a system this script installs on" \
        "install and start Docker Engine 25 or newer, compose v2 >= $COMPOSE_MINIMUM and buildx, then run this again" \
        "on a Mac: start Docker Desktop, OrbStack or Colima"
}

# A source of the newer release beside the machine's own, never preferred (priority 100).
add_newer_source() {
    local from sources suite
    from=$(os_field VERSION_CODENAME)
    sources=$(derive_sources "$from" "$NEWER") ||
        die "$EXIT_REFUSED" "no Debian source in /etc/apt to derive $NEWER from" \
            "add a $NEWER source to /etc/apt/sources.list.d, or install Docker Engine 25 or newer yourself"
    say "adding $NEWER beside $from (same mirror and keyring, priority 100: only for what is asked from it)"
    printf '%s\n' "$sources" | as_root tee "/etc/apt/sources.list.d/vaultcube-$NEWER.sources" >/dev/null
    for suite in "$NEWER" "$NEWER-updates" "$NEWER-security"; do
        printf 'Package: *\nPin: release n=%s\nPin-Priority: 100\n\n' "$suite"
    done | as_root tee "/etc/apt/preferences.d/vaultcube-$NEWER" >/dev/null
}

install_packages() {
    local kind=$1
    shift
    local wanted=("$@")
    can_be_root || refuse_without_root "$kind" "$@"
    if [ "$kind" = debian12 ] && [[ " $* " != *-plugin* ]]; then
        add_newer_source
        wanted=("${wanted[@]/%//$NEWER}")
        wanted=("${wanted[@]/#apparmor\/*/apparmor}")
    fi
    say "installing ${wanted[*]} (Docker Engine, compose v2, buildx)"
    # A broken third-party source must not stop this: the install below judges.
    as_root apt-get update -q >&2 || note "apt-get update was not clean; going on with what it has"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "${wanted[@]}" >&2 ||
        die 1 "apt could not install ${wanted[*]}" "see apt's own message above; 'apt-get update' must reach the mirror"
    hash -r
}

mark_service() { echo systemd | as_root tee "$MARKER" >/dev/null; }

has_systemd() { [ -d /run/systemd/system ]; }

# forget_stale_pid FILE NAME: a pid file whose process is gone or is somebody else's keeps dockerd from starting.
forget_stale_pid() {
    local pid
    [ -f "$1" ] || return 0
    pid=$(cat "$1")
    [ "$(cat "/proc/${pid:-none}/comm" 2>/dev/null)" = "$2" ] || as_root rm -f "$1"
}

start_dockerd() {
    say "starting dockerd without systemd; its log: $LOG"
    forget_stale_pid /run/docker.pid dockerd
    forget_stale_pid /run/docker/containerd/containerd.pid containerd
    # Detached, with no descriptor of ours: a daemon that holds a caller's pipe keeps the caller waiting for ever.
    # shellcheck disable=SC2016
    as_root bash -c '
        for fd in /proc/$$/fd/*; do
            fd=${fd##*/}
            if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi
        done
        mkdir -p "$(dirname "$1")"
        cd /
        setsid dockerd --pidfile /run/docker.pid >>"$1" 2>&1 </dev/null &
        echo $! >"$2"' start-dockerd "$LOG" "$MARKER" </dev/null >/dev/null 2>&1
}

# Tells a refused socket from a silent engine: the two need different help.
mind_socket_permission() {
    local answer
    answer=$(docker version 2>&1 || true)
    grep -qi 'permission denied' <<<"$answer" || return 0
    if group_is_new; then with_docker_group "$PWD/engine.sh"; fi
    die "$EXIT_REFUSED" "an engine runs, but user $(id -un) may not use its socket" \
        "sudo usermod -aG docker $(id -un), log in again, then run this again"
}

# Whoever had this script install the engine wants to use it, and could be root anyway.
join_group() {
    if is_root; then return; fi
    say "adding $(id -un) to group docker (as good as root on this machine); other shells see it after the next login"
    as_root usermod -aG docker "$(id -un)"
}

start_engine() {
    can_be_root || die "$EXIT_REFUSED" "the Docker engine is installed but does not run, and this user cannot start it" \
        "ask an administrator to run: systemctl enable --now docker"
    if has_systemd; then
        say "starting the Docker service (and at every boot)"
        as_root systemctl enable --now docker >&2 || die 1 "the Docker service does not start" "journalctl -u docker -n 50"
        mark_service
    else
        start_dockerd
    fi
    wait_for_engine
}

wait_for_engine() {
    local until=$((SECONDS + START_LIMIT_S))
    until engine_answers; do
        mind_socket_permission
        if [ "$SECONDS" -ge "$until" ] || ! started_runs; then
            has_systemd || { note "last lines of $LOG:" && as_root tail -n 20 "$LOG" >&2; } || true
            die 1 "the Docker engine does not answer" "read its log; a full disk and missing cgroups are the usual causes"
        fi
        sleep 0.2
    done
}

# A dockerd that died at once is reported at once, not after the whole wait.
started_runs() {
    has_systemd || [ -d "/proc/$(cat "$MARKER" 2>/dev/null || echo none)" ]
}

stop_engine() {
    local pid
    if [ ! -f "$MARKER" ]; then
        say "the engine was not started by this script: left alone"
        return 0
    fi
    pid=$(cat "$MARKER")
    if [ "$pid" = systemd ]; then
        as_root systemctl stop docker.service docker.socket
    elif [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ]; then
        say "stopping the engine (pid $pid)"
        as_root kill "$pid"
        local until=$((SECONDS + START_LIMIT_S))
        while [ -d "/proc/$pid" ]; do
            [ "$SECONDS" -lt "$until" ] || die 1 "dockerd (pid $pid) does not stop" "read $LOG"
            sleep 0.2
        done
    fi
    as_root rm -f "$MARKER"
}

ensure_engine() {
    local kind missing
    if engine_answers && has_compose && has_buildx; then
        say "Docker engine $(engine_version), compose $(compose_version): there"
        return
    fi
    if [ -n "${DOCKER_HOST:-}" ] && ! engine_answers; then
        die "$EXIT_REFUSED" "no engine answers at DOCKER_HOST=$DOCKER_HOST" "start it, or unset DOCKER_HOST"
    fi
    if command -v docker >/dev/null 2>&1; then mind_socket_permission; fi
    kind=$(os_kind)
    [ "$kind" != other ] || refuse_other_system
    mapfile -t missing < <(missing_packages "$kind")
    if [ "${#missing[@]}" -gt 0 ]; then
        install_packages "$kind" "${missing[@]}"
        if [[ " ${missing[*]} " == *" docker.io "* ]]; then
            join_group
            # Its package may have started the service already: that counts as started here.
            if has_systemd && systemctl is-active --quiet docker; then mark_service; fi
        fi
    fi
    engine_answers || start_engine
    has_compose || die 1 "docker compose is '$(compose_version)', and $COMPOSE_MINIMUM or newer is needed" \
        "remove an older compose plugin that hides the new one: ~/.docker/cli-plugins, /usr/local/lib/docker/cli-plugins"
    has_buildx || die 1 "docker buildx does not run" "docker buildx version"
    say "Docker engine $(engine_version), compose $(compose_version): ready"
}

case ${1:-ensure} in
ensure) ensure_engine ;;
stop) stop_engine ;;
*) die 2 "engine.sh: unknown verb '$1'" "engine.sh, or engine.sh stop" ;;
esac
