# shellcheck shell=bash
# Shared by the set-up scripts: messages, root, versions, what this system is called.
# Functions only: sourcing it changes nothing, so the tests source it too.

# shellcheck disable=SC2034 # for those who source this
readonly EXIT_REFUSED=3 # as in the command line: the environment cannot do it

say() { printf '==> %s\n' "$*" >&2; }
note() { printf '    %s\n' "$*" >&2; }

# die CODE WHAT NEXT...: one line of what happened, then what to do next.
die() {
    local code=$1
    printf 'error: %s\n' "$2" >&2
    shift 2
    local line
    for line in "$@"; do printf '  next: %s\n' "$line" >&2; done
    exit "$code"
}

# version_at_least HAVE WANT: 2.26.1-4 >= 2.24.4
version_at_least() {
    [ "$(printf '%s\n%s\n' "$2" "${1#v}" | sort -V | head -n1)" = "$2" ]
}

# engine_version: the engine's, and failure when none answers.
# Not `docker info`: with --format, clients up to 26 exit 0 without an engine.
engine_version() { docker version --format '{{.Server.Version}}' 2>/dev/null; }

engine_answers() { engine_version >/dev/null 2>&1; }

# group_is_new: this user is in group docker, but since after this session began.
group_is_new() {
    command -v sg >/dev/null 2>&1 || return 1
    [[ " $(id -nG "$(id -un)") " == *" docker "* ]] && [[ " $(id -nG) " != *" docker "* ]]
}

# with_docker_group SCRIPT ARGUMENT...: start over in a session that has the group; does not return.
with_docker_group() {
    exec sg docker -c "$(printf '%q ' "$@")"
}

# os_field NAME: one field of os-release, empty when absent.
os_field() {
    local file=${OS_RELEASE:-/etc/os-release}
    [ -r "$file" ] || return 0
    # A subshell, because os-release is shell syntax and would set our own names.
    (
        # shellcheck disable=SC1090
        . "$file"
        printf '%s' "${!1:-}"
    )
}

# os_kind: debian12 | debian13 (or newer, or testing) | ubuntu (24.04 or newer) | other
os_kind() {
    local id version
    id=$(os_field ID)
    version=$(os_field VERSION_ID)
    case $id in
    debian)
        if [ -z "$version" ] || [ "${version%%.*}" -ge 13 ]; then
            echo debian13
        elif [ "${version%%.*}" -eq 12 ]; then
            echo debian12
        else
            echo other
        fi
        ;;
    ubuntu) if version_at_least "${version:-0}" 24.04; then echo ubuntu; else echo other; fi ;;
    *) echo other ;;
    esac
}

os_name() {
    local name
    name=$(os_field PRETTY_NAME)
    printf '%s' "${name:-$(uname -s)}"
}

# engine_packages KIND: what holds the engine, compose v2 and buildx there.
engine_packages() {
    case $1 in
    debian12 | debian13) echo docker.io docker-cli docker-compose docker-buildx ;;
    ubuntu) echo docker.io docker-compose-v2 docker-buildx ;;
    *) return 1 ;;
    esac
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# can_be_root: root already, or sudo that works without asking, or a terminal where it can ask.
can_be_root() {
    is_root && return 0
    command -v sudo >/dev/null 2>&1 || return 1
    sudo -n true 2>/dev/null || [ -t 0 ]
}

as_root() {
    if is_root; then "$@"; else sudo -- "$@"; fi
}

# ensure_packages WHY ELSE PACKAGE...: install packages; without root or apt, say "WHY: packages" and what to do ("or: ...").
ensure_packages() {
    local why=$1 else=$2
    shift 2
    if [ "$#" -eq 0 ]; then return; fi
    if ! command -v apt-get >/dev/null 2>&1 || ! can_be_root; then
        die "$EXIT_REFUSED" "$why: $*" "sudo apt-get install $*${else:+, $else}"
    fi
    say "installing $*"
    # The package lists may be empty (a fresh machine) or stale: fetch them once, when the first try fails.
    install_quietly "$@" 2>/dev/null && return
    as_root apt-get update -q >&2 || note "apt-get update was not clean; going on with what it has"
    install_quietly "$@" >&2 || die 1 "apt could not install $*" "see apt's own message above"
}

install_quietly() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "$@" >&2
}

# source_files: the machine's apt source files, those that exist.
source_files() {
    local etc=${APT_ETC:-/etc/apt} file
    for file in "$etc"/sources.list "$etc"/sources.list.d/*.list "$etc"/sources.list.d/*.sources; do
        # Our own earlier derivation is not a source to derive from.
        case $file in */vaultcube-*) continue ;; esac
        if [ -f "$file" ]; then printf '%s\n' "$file"; fi
    done
}

# derive_sources FROM TO: the machine's Debian sources (deb822 on stdout) with suite TO in place of
# FROM: same mirrors, same keyrings, component main only. Fails when there is none to derive from.
derive_sources() {
    local from=$1 to=$2 file out=""
    while IFS= read -r file; do
        case $file in
        *.sources) out+=$(derive_deb822 "$from" "$to" <"$file") ;;
        *) out+=$(derive_one_line "$from" "$to" <"$file") ;;
        esac
        out+=$'\n'
    done < <(source_files)
    out=$(printf '%s' "$out" | sed '/./,$!d')
    [ -n "$out" ] || return 1
    printf '%s\n' "$out"
}

# Both awk programs share this: which suites and URIs are Debian's own. A third party that also
# names its suite after the release (and its component `main`) is kept out by the URI.
readonly DERIVE_AWK='
function map_suite(s,   tail) {
    sub(/\/$/, "", s)
    tail = s
    if (!sub("^(" from "|stable|oldstable)", "", tail)) return ""
    return (tail == "" || tail == "-updates" || tail == "-security") ? to tail : ""
}
function map_suites(list,   n, i, parts, one, out) {
    n = split(list, parts, /[ \t]+/)
    for (i = 1; i <= n; i++) {
        one = parts[i] == "" ? "" : map_suite(parts[i])
        if (one != "") out = out (out == "" ? "" : " ") one
    }
    return out
}
function is_debian(uris, components) {
    return uris ~ /\/debian(-security)?(\/|$|[ \t])/ && (" " components " ") ~ /[ \t]main[ \t]/
}'

derive_one_line() {
    awk -v from="$1" -v to="$2" "$DERIVE_AWK"'
    $1 == "deb" {
        line = $0
        sub(/[ \t]*#.*/, "", line)
        options = ""
        if (match(line, /\[[^]]*\]/)) {
            options = substr(line, RSTART + 1, RLENGTH - 2)
            line = substr(line, 1, RSTART - 1) substr(line, RSTART + RLENGTH)
        }
        n = split(line, word, /[ \t]+/)
        components = ""
        for (i = 4; i <= n; i++) components = components " " word[i]
        suites = map_suites(word[3])
        if (suites == "" || !is_debian(word[2], components)) next
        printf "Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n", word[2], suites
        n = split(options, option, /[ \t]+/)
        for (i = 1; i <= n; i++) {
            if (option[i] !~ /=/) continue
            name = option[i]; sub(/=.*/, "", name)
            value = option[i]; sub(/^[^=]*=/, "", value); gsub(/,/, " ", value)
            if (name == "arch") name = "Architectures"
            else if (name == "lang") name = "Languages"
            else if (name == "target") name = "Targets"
            else if (name == "signed-by") name = "Signed-By"
            printf "%s: %s\n", name, value
        }
        print ""
    }'
}

derive_deb822() {
    awk -v from="$1" -v to="$2" "$DERIVE_AWK"'
    function flush_stanza(   suites, i) {
        suites = map_suites(value["suites"])
        if (count && (" " value["types"] " ") ~ /[ \t]deb[ \t]/ && tolower(value["enabled"]) !~ /^(no|false|0|off)/ \
            && suites != "" && is_debian(value["uris"], value["components"])) {
            printf "Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n", value["uris"], suites
            # Everything else as it stands: Signed-By may hold a whole key over many lines.
            for (i = 1; i <= count; i++)
                if (key[i] !~ /^(types|uris|suites|components|enabled)$/) print text[i]
            print ""
        }
        split("", value); split("", key); split("", text); count = 0
    }
    /^[ \t]*#/ { next }
    /^[ \t]*$/ { flush_stanza(); next }
    /^[ \t]/ {
        text[count] = text[count] "\n" $0
        more = $0; sub(/^[ \t]+/, "", more)
        value[key[count]] = value[key[count]] " " more
        next
    }
    {
        name = $0; sub(/:.*/, "", name)
        rest = $0; sub(/^[^:]*:[ \t]*/, "", rest); sub(/[ \t]+$/, "", rest)
        count++
        key[count] = tolower(name); text[count] = $0; value[key[count]] = rest
    }
    END { flush_stanza() }'
}

# Debian's own keys; Ubuntu does not carry them by default.
readonly DEBIAN_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# mirror_lines SUITE: apt lines for a Debian suite from the machine's own mirrors, or nothing (then mmdebstrap's
# default for the suite serves). No options: keyring paths of this machine mean nothing in what is made.
mirror_lines() {
    local from uris=""
    from=$(os_field VERSION_CODENAME)
    derive_sources "${from:-$1}" "$1" | while IFS= read -r line; do
        case $line in
        URIs:*) uris=${line#URIs: } ;;
        Suites:*) print_lines "$uris" "${line#Suites: }" ;;
        esac
    done || true
}

# keyrings SUITE: Debian's own, and whatever the machine's sources name (a private mirror may sign for itself).
keyrings() {
    local from path
    from=$(os_field VERSION_CODENAME)
    {
        printf '%s\n' "$DEBIAN_KEYRING"
        derive_sources "${from:-$1}" "$1" | sed -n 's/^Signed-By:[ \t]*//p' | tr ' ' '\n' || true
    } | sort -u | while IFS= read -r path; do if [ -f "$path" ]; then printf '%s\n' "$path"; fi; done
}

print_lines() {
    local uri suite
    for uri in $1; do
        # A local mirror of this machine's file system is not there in what is made.
        case $uri in http://* | https://*) ;; *) continue ;; esac
        for suite in $2; do printf 'deb %s %s main\n' "$uri" "$suite"; done
    done
}
