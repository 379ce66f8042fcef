"""The zsh script for completion: an engine that is the same for every tree, and the tree as one `case`."""

from __future__ import annotations

from orchctl.cli.completion_tree import Argument, Command, Option, Value

_TEMPLATE = r"""#compdef orchctl
# zsh completion for orchctl, written by `orchctl completions zsh`.
# Job names and run ids come from plain files that orchctl keeps: no Python is started, and for names no process.

# Sets what the command $1 (`runs show`) takes, each followed by its help. An option is NAME|NAME:KIND:LABEL, an
# argument KIND:LABEL; the KIND `=a,b` is a choice of words, and `...` at the end means any number of times.
_orchctl_command() {
    commands=() arguments=() options=()
    case $1 in
@COMMANDS@
    esac
}

# Sets `kind` and `label` to what the option $1 takes, empty for a flag. False for an option that is not known here.
_orchctl_option() {
    local entry text
    kind='' label=''
    for entry text in "${options[@]}" "${everywhere[@]}"; do
        entry=${entry%...}
        if [[ "|${entry%%:*}|" == *"|$1|"* ]]; then
            [[ $entry == *:* ]] && kind=${${entry#*:}%%:*} label=${entry##*:}
            return 0
        fi
    done
    return 1
}

_orchctl_offer_commands() {
    local name text
    local -a found=()
    for name text in "${commands[@]}"; do found+=("$name:$text"); done
    _describe -t commands command found
}

_orchctl_offer_options() {
    local entry text name
    local -a found=() names=()
    for entry text in "${options[@]}" "${everywhere[@]}"; do
        names=("${(@s:|:)${${entry%...}%%:*}}")
        [[ $entry == *... || -z ${names:*used} ]] || continue
        for name in "${names[@]}"; do found+=("$name:$text"); done
    done
    _describe -O option found
}

# Offers the names in the file ${1}s. What is not a name is not offered, whatever the file holds.
_orchctl_offer_names() {
    local file=$state/completion/${1}s
    local -a names=() expl
    [[ -f $file && -r $file ]] && names=("${(@f)$(<$file)}")
    names=("${(@M)names:#[a-z0-9][a-z0-9_.-](#c0,62)}")
    names=("${(@)names:|given}")
    _wanted ${1}s expl $1 compadd -a names
}

# Sets `days` to today and yesterday. Yesterday is counted from about noon, so that no change of clocks matters.
_orchctl_days() {
    local day hour
    zmodload -F zsh/datetime b:strftime p:EPOCHSECONDS || return 1
    local -i now=$EPOCHSECONDS
    [[ $1 == utc ]] && local -x TZ=UTC0
    strftime -s hour %H $now
    strftime -s day %Y-%m-%d $now
    days=($day)
    strftime -s day %Y-%m-%d $((now - 10#$hour * 3600 - 43200))
    days+=($day)
}

_orchctl_offer_runs() {
    local folder day
    local -a days=() folders=() files=() ids=() expl
    [[ -f $state/completion/events && -r $state/completion/events ]] &&
        folders=("${(@f)$(<$state/completion/events)}")
    _orchctl_days utc
    for folder in "${folders[@]}"; do
        for day in "${days[@]}"; do
            [[ $folder == /* && -f $folder/$day.jsonl ]] && files+=("$folder/$day.jsonl")
        done
    done
    (( $#files )) || return 1
    ids=("${(@f)$(exec grep -aoh '"run_id": *"[^"]*"' -- "${files[@]}" 2>/dev/null)}")
    ids=("${(@)${(@)ids%\"}##*\"}")
    ids=("${(@M)ids:#[0-9](#c8)T[0-9](#c6)Z-[0-9a-f](#c6)}")
    ids=("${(@uO)ids}")
    ids=("${(@)ids:|given}")
    _wanted -V runs expl 'run, the newest first' compadd -a ids
}

_orchctl_offer_value() {
    local -a days=() found=() expl
    case $kind in
        ('='*)
            found=("${(@s:,:)kind#=}")
            _wanted values expl $label compadd -a found
            ;;
        (job|asset|contract) _orchctl_offer_names $kind ;;
        (run) _orchctl_offer_runs ;;
        (date)
            _orchctl_days local
            _wanted -V dates expl $label compadd -a days
            ;;
        (instant)
            _orchctl_days utc
            found=("${(@)^days}T00:00:00Z")
            _wanted -V instants expl $label compadd -a found
            ;;
        (directory) _files -/ ;;
        (file) _files ;;
        (none) _message -e values $label ;;
        (*) return 1 ;;
    esac
}

# Sets `kind` and `label` to what the next positional argument takes; false where there is none.
_orchctl_argument() {
    local entry text
    local -i left=$seen
    for entry text in "${arguments[@]}"; do
        kind=${${entry%...}%%:*} label=${${entry%...}##*:}
        [[ $entry == *... || $left -eq 0 ]] && return 0
        left=$((left - 1))
    done
    return 1
}

# Reads the words before the one at the cursor.
_orchctl_read() {
    local word
    for word in "${(@)words[2,CURRENT-1]}"; do
        [[ $word == '~/'* ]] && word=$HOME${word#'~'}
        word=${(Q)word}
        if [[ -n $pending ]]; then
            [[ $pending == --state-dir ]] && state=$word
            pending=''
        elif [[ -z $dashes && $word == -- ]]; then
            dashes=1
        elif [[ -z $dashes && $word == -?* ]]; then
            used+=("${word%%=*}")
            _orchctl_option "${word%%=*}"
            if [[ -n $kind && $word != *=* ]]; then
                pending=$word
            elif [[ $word == --state-dir=* ]]; then
                state=${word#*=}
            fi
        elif (( $#commands )); then
            command+=" $word"
            _orchctl_command "${command# }"
        else
            seen+=1
            given+=("$word")
        fi
    done
}

_orchctl() {
    local kind='' label='' pending='' dashes='' command=''
    local state=${ORCHCTL_STATE_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/orchctl}
    local -i seen=0
    local -a commands arguments options used given everywhere=(
@EVERYWHERE@
    )
    _orchctl_command ''
    _orchctl_read
    if [[ -n $pending ]]; then
        _orchctl_option $pending
        _orchctl_offer_value
    elif [[ -z $dashes && $PREFIX == --*=* ]]; then
        _orchctl_option ${PREFIX%%=*} || return 1
        compset -P '[^=]#='
        _orchctl_offer_value
    elif [[ -z $dashes && $PREFIX == -* ]]; then
        _orchctl_offer_options
    elif (( $#commands )); then
        _orchctl_offer_commands
    elif _orchctl_argument; then
        _orchctl_offer_value
    elif [[ -z $dashes && -z $PREFIX ]]; then
        _orchctl_offer_options
    else
        return 1
    fi
}

# As a file of $fpath this is the function itself; read with `source` it must say what it completes.
if [[ $funcstack[1] == _orchctl ]]; then
    _orchctl "$@"
else
    compdef _orchctl orchctl
fi
"""


def script(root: Command) -> str:
    """Return the script for this tree."""
    commands = "\n".join(_case(path, command) for path, command in root.walk())
    return _TEMPLATE.replace("@COMMANDS@", commands).replace("@EVERYWHERE@", _options(root.everywhere, 8))


def _case(path: tuple[str, ...], command: Command) -> str:
    below = _entries([(child.name, child.help) for child in command.commands], 16)
    arguments = _entries([(entry, "") for argument in command.arguments for entry in _argument(argument)], 16)
    parts = [f"        ('{' '.join(path)}')"]
    for name, entries in (("commands", below), ("arguments", arguments), ("options", _options(command.options, 16))):
        if entries:
            parts += [f"            {name}=(", entries, "            )"]
    return "\n".join([*parts, "            ;;"])


def _options(options: tuple[Option, ...], indent: int) -> str:
    return _entries([(_option(option), option.help) for option in options], indent)


def _entries(entries: list[tuple[str, str]], indent: int) -> str:
    return "\n".join(f"{' ' * indent}{_quoted(entry)} {_quoted(text)}" for entry, text in entries)


def _option(option: Option) -> str:
    names = "|".join(option.names) + (f":{_kind(option.value)}" if option.value else "")
    return names + ("..." if option.repeatable else "")


def _argument(argument: Argument) -> list[str]:
    kind = _kind(argument.value)
    return [f"{kind}..."] if argument.count is None else [kind] * argument.count


def _kind(value: Value) -> str:
    return ("=" + ",".join(value.words) if value.kind == "words" else value.kind) + f":{value.label}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
