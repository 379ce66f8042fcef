# bash completion for orchctl, written by `orchctl completions bash`. Needs bash 4.4.
# Job names and run ids come from plain files that orchctl keeps: no Python is started, and for names no process.

# Sets what the command $1 (`runs show`) takes. An option is NAME|NAME:KIND, an argument KIND; the KIND `=a,b` is a
# choice of words, and `...` at the end means any number of times.
_orchctl_command() {
    case $1 in
        '')
            commands='check jobs plan sync status cutover confirm rollback recover run backfill legacy completions demo doctor runs publish contract alerts host import schedule watchdog'
            arguments=''
            options='--version --help|-h'
            ;;
        'check')
            commands=''
            arguments=''
            options='--help|-h'
            ;;
        'jobs')
            commands=''
            arguments='job'
            options='--help|-h'
            ;;
        'plan')
            commands=''
            arguments='job...'
            options='--prune --help|-h'
            ;;
        'sync')
            commands=''
            arguments='job...'
            options='--prune --dry-run --yes --help|-h'
            ;;
        'status')
            commands=''
            arguments='job'
            options='--watch --check --help|-h'
            ;;
        'cutover')
            commands=''
            arguments='job...'
            options='--dry-run --wait --yes --waive:none... --confirm-within:none --help|-h'
            ;;
        'confirm')
            commands=''
            arguments='job'
            options='--help|-h'
            ;;
        'rollback')
            commands=''
            arguments='job...'
            options='--now --dry-run --yes --help|-h'
            ;;
        'recover')
            commands=''
            arguments=''
            options='--help|-h'
            ;;
        'run')
            commands=''
            arguments='job'
            options='--date:date --as-of:instant --as-of-mode:none --execution:none --param:none... --wait --help|-h'
            ;;
        'backfill')
            commands=''
            arguments='job'
            options='--start:date --end:date --steps:none --as-of-mode:none --param:none... --max-parallel:none --only-missed --failed --force --dry-run --no-resume --wait --help|-h'
            ;;
        'legacy')
            commands=''
            arguments='job'
            options='--all --help|-h'
            ;;
        'completions')
            commands=''
            arguments='=bash,zsh,fish'
            options='--help|-h'
            ;;
        'demo')
            commands=''
            arguments=''
            options='--keep --steps --help|-h'
            ;;
        'doctor')
            commands=''
            arguments='none...'
            options='--list --strict --help|-h'
            ;;
        'runs')
            commands='show logs retry reindex audit'
            arguments=''
            options='--date:date --job:job --status:=running,success,failed,skipped,crashed,cancelled,observed --since:date --limit:none --help|-h'
            ;;
        'runs show')
            commands=''
            arguments='run'
            options='--svg:file --help|-h'
            ;;
        'runs logs')
            commands=''
            arguments='run'
            options='--follow|-f --step:none --help|-h'
            ;;
        'runs retry')
            commands=''
            arguments='run'
            options='--from:none --force --wait --help|-h'
            ;;
        'runs reindex')
            commands=''
            arguments=''
            options='--help|-h'
            ;;
        'runs audit')
            commands=''
            arguments=''
            options='--date:date --since:date --job:job --help|-h'
            ;;
        'publish')
            commands='show promote rollback'
            arguments=''
            options='--help|-h'
            ;;
        'publish show')
            commands=''
            arguments='asset'
            options='--date:date --help|-h'
            ;;
        'publish promote')
            commands=''
            arguments='asset'
            options='--date:date --run:run --reason:none --yes --help|-h'
            ;;
        'publish rollback')
            commands=''
            arguments='asset'
            options='--date:date --run:run --reason:none --yes --help|-h'
            ;;
        'contract')
            commands='list check'
            arguments=''
            options='--help|-h'
            ;;
        'contract list')
            commands=''
            arguments=''
            options='--help|-h'
            ;;
        'contract check')
            commands=''
            arguments='contract file'
            options='--as-of:instant --snapshot:instant --help|-h'
            ;;
        'alerts')
            commands='list apply test'
            arguments=''
            options='--help|-h'
            ;;
        'alerts list')
            commands=''
            arguments=''
            options='--help|-h'
            ;;
        'alerts apply')
            commands=''
            arguments=''
            options='--dry-run --yes --help|-h'
            ;;
        'alerts test')
            commands=''
            arguments='none'
            options='--help|-h'
            ;;
        'host')
            commands='up down status restart logs install uninstall backup verify restore prune upgrade database'
            arguments=''
            options='--help|-h'
            ;;
        'host up')
            commands=''
            arguments=''
            options='--port:none --help|-h'
            ;;
        'host down')
            commands=''
            arguments=''
            options='--help|-h'
            ;;
        'host status')
            commands=''
            arguments=''
            options='--help|-h'
            ;;
        'host restart')
            commands=''
            arguments='none'
            options='--help|-h'
            ;;
        'host logs')
            commands=''
            arguments='none'
            options='--lines|-n:none --follow|-f --help|-h'
            ;;
        'host install')
            commands=''
            arguments=''
            options='--scope:none --user:none --port:none --database:none --database-file:file --no-server|--server --pool:none... --dry-run --yes|-y --help|-h'
            ;;
        'host uninstall')
            commands=''
            arguments=''
            options='--yes|-y --help|-h'
            ;;
        'host backup')
            commands=''
            arguments=''
            options='--to:directory --keep:none --help|-h'
            ;;
        'host verify')
            commands=''
            arguments='file'
            options='--help|-h'
            ;;
        'host restore')
            commands=''
            arguments='file'
            options='--only:none --dry-run --yes --help|-h'
            ;;
        'host prune')
            commands=''
            arguments=''
            options='--older-than:none --only:none --dry-run --yes --help|-h'
            ;;
        'host upgrade')
            commands=''
            arguments=''
            options='--prefect:none --requirement:none... --constraints:file --to:directory --patience:none --now --dry-run --yes|-y --help|-h'
            ;;
        'host database')
            commands='move'
            arguments=''
            options='--help|-h'
            ;;
        'host database move')
            commands=''
            arguments=''
            options='--help|-h'
            ;;
        'import')
            commands='systemd cron'
            arguments=''
            options='--help|-h'
            ;;
        'import systemd')
            commands=''
            arguments='none...'
            options='--scope:none --write --data-root:directory --work-pool:none --help|-h'
            ;;
        'import cron')
            commands=''
            arguments='none'
            options='--user:none --system --write --data-root:directory --work-pool:none --help|-h'
            ;;
        'schedule')
            commands='next compare'
            arguments=''
            options='--help|-h'
            ;;
        'schedule next')
            commands=''
            arguments='job'
            options='--count:none --help|-h'
            ;;
        'schedule compare')
            commands=''
            arguments='job'
            options='--days:none --help|-h'
            ;;
        'watchdog')
            commands='install uninstall status'
            arguments=''
            options='--dry-run --help|-h'
            ;;
        'watchdog install')
            commands=''
            arguments=''
            options='--env-file:file... --dry-run --help|-h'
            ;;
        'watchdog uninstall')
            commands=''
            arguments=''
            options='--help|-h'
            ;;
        'watchdog status')
            commands=''
            arguments=''
            options='--help|-h'
            ;;
        *) commands='' arguments='' options='' ;;
    esac
}

# Sets `kind` to what the option $1 takes, empty for a flag. False for an option that is not known here.
_orchctl_option() {
    local entry
    kind=''
    for entry in $options $everywhere; do
        entry=${entry%...}
        if [[ "|${entry%%:*}|" == *"|$1|"* ]]; then
            [[ $entry == *:* ]] && kind=${entry#*:}
            return 0
        fi
    done
    return 1
}

# Sets `plain` to the word $1 without its quotes. Nothing is expanded but a leading ~/.
_orchctl_plain() {
    plain=$1
    [[ $plain == *[\'\"\\~]* ]] || return 0
    local rest=$1 quote='' char
    plain=''
    [[ $rest == '~/'* ]] && plain=${HOME-} rest=${rest:1}
    while [[ -n $rest ]]; do
        char=${rest:0:1} rest=${rest:1}
        case $quote$char in
            \' | \") quote=$char ;;
            \'\' | \"\") quote='' ;;
            \\ | \"\\) plain+=${rest:0:1} rest=${rest:1} ;;
            *) plain+=$char ;;
        esac
    done
}

# Sets `words` to the words before the cursor, the last being the one at the cursor. Bash splits --status=fa and
# 2025-12-19T05:00 at COMP_WORDBREAKS; here they are whole again, and `lead` is the part that readline will keep.
_orchctl_words() {
    local line=${COMP_LINE:0:COMP_POINT} word blank piece
    for word in "${COMP_WORDS[@]}"; do
        blank=${line%%[![:space:]]*} line=${line#"${line%%[![:space:]]*}"}
        if [[ $line == "$word"* ]]; then piece=$word; else piece=$line; fi
        line=${line#"$piece"}
        if [[ -n $blank || ${#words[@]} -eq 0 ]]; then
            words+=("$piece") lead=''
        else
            lead=${words[-1]} words[-1]+=$piece
            [[ $piece == *[!=:]* ]] || lead=${words[-1]}
        fi
        [[ -n $line ]] || break
    done
}

# Offers those of the words $@ that go on from `value`.
_orchctl_offer() {
    local word
    local -a found=()
    for word in "$@"; do [[ $word == "$value"* ]] && found+=("$word"); done
    found=("${found[@]/#/"$prefix"}")
    COMPREPLY+=("${found[@]#"$lead"}")
}

_orchctl_offer_options() {
    local entry name names
    for entry in $options $everywhere; do
        names=${entry%...} names=${names%%:*} names=${names//|/ }
        if [[ $entry != *... ]]; then
            for name in $names; do [[ $used == *" $name "* ]] && continue 2; done
        fi
        _orchctl_offer $names
    done
}

# Offers the names in the file $1. What is not a name is not offered: readline would put it on the line as it is,
# `$(...)` and all.
_orchctl_offer_names() {
    local name file=$state/completion/$1
    local -a names=() known=()
    [[ -f $file && -r $file ]] && mapfile -t names <"$file"
    for name in "${names[@]}"; do
        [[ $name == "$value"* && $name == [a-z0-9]* && $name != *[!a-z0-9_.-]* && ${#name} -le 63 ]] &&
            [[ $given != *" $name "* ]] && known+=("$name")
    done
    _orchctl_offer "${known[@]}"
}

# Sets `days` to today and yesterday. Yesterday is counted from about noon, so that no change of clocks matters.
_orchctl_days() {
    local now hour day
    printf -v now '%(%s)T' -1
    if [[ $1 == utc ]]; then
        TZ=UTC0 printf -v day '%(%Y-%m-%d)T' "$now"
        days=("$day")
        TZ=UTC0 printf -v day '%(%Y-%m-%d)T' $((now - 86400))
    else
        printf -v hour '%(%H)T' "$now"
        printf -v day '%(%Y-%m-%d)T' "$now"
        days=("$day")
        printf -v day '%(%Y-%m-%d)T' $((now - 10#$hour * 3600 - 43200))
    fi
    days+=("$day")
}

_orchctl_offer_runs() {
    local folder day hex line id at form=00000000T000000Z-xxxxxx
    local -a days=() folders=() files=() lines=() ids=() sorted=()
    [[ -f $state/completion/events && -r $state/completion/events ]] && mapfile -t folders <"$state/completion/events"
    _orchctl_days utc
    for folder in "${folders[@]}"; do
        for day in "${days[@]}"; do
            [[ $folder == /* && -f $folder/$day.jsonl ]] && files+=("$folder/$day.jsonl")
        done
    done
    [[ ${#files[@]} -gt 0 && $value != *[!0-9a-fTZ-]* ]] || return 0
    form=${form:${#value}} form=${form//0/[0-9]} form=$value${form//x/[0-9a-f]}
    local IFS=$'\n'
    # Not mapfile: from a pipe it reads byte by byte.
    lines=($(exec grep -aoh "\"run_id\": *\"$form\"" -- "${files[@]}" 2>/dev/null))
    for line in "${lines[@]}"; do
        id=${line: -24:23} day=${line: -22:6}${line: -15:6} hex=${line: -7:6}
        # An array keeps its indices in order: the id as a number (63 bits last until 2054) sorts, and drops doubles.
        [[ $day$hex != *[!0-9a-f]* && $day != *[!0-9]* ]] && ids[10#$day * 16777216 + 16#$hex]=$id
    done
    ids=("${ids[@]}")
    for ((at = ${#ids[@]} - 1; at >= 0; at--)); do
        [[ $given == *" ${ids[at]} "* ]] || sorted+=("${ids[at]}")
    done
    compopt -o nosort 2>/dev/null
    _orchctl_offer "${sorted[@]}"
}

# Lets readline find the folders: it knows quotes and tildes. Where its word is not just the folder, we look.
_orchctl_offer_paths() {
    local path
    local -a paths=()
    [[ $lead == "$prefix" ]] && compopt -o filenames -o "$2" 2>/dev/null && return 0
    compopt -o filenames 2>/dev/null
    mapfile -t paths < <(compgen "$1" -- "$value")
    for path in "${paths[@]}"; do
        [[ -d $path ]] && path+=/ && compopt -o nospace 2>/dev/null
        _orchctl_offer "$path"
    done
}

_orchctl_offer_value() {
    local -a days=()
    case $kind in
        =*) kind=${kind#=} && _orchctl_offer ${kind//,/ } ;;
        job | asset | contract) _orchctl_offer_names "${kind}s" ;;
        run) _orchctl_offer_runs ;;
        date | instant)
            _orchctl_days local
            [[ $kind == date ]] || { _orchctl_days utc && days=("${days[@]/%/T00:00:00Z}"); }
            compopt -o nosort 2>/dev/null
            _orchctl_offer "${days[@]}"
            ;;
        directory) _orchctl_offer_paths -d dirnames ;;
        file) _orchctl_offer_paths -f default ;;
    esac
}

# Sets `kind` to what the next positional argument takes; false where there is none.
_orchctl_argument() {
    local left=$seen
    for kind in $arguments; do
        [[ $kind == *... || $left -eq 0 ]] && kind=${kind%...} && return 0
        left=$((left - 1))
    done
    return 1
}

# Reads the words before the one at the cursor.
_orchctl_read() {
    local word plain
    for word in "${words[@]:1:${#words[@]}-2}"; do
        _orchctl_plain "$word"
        if [[ -n $pending ]]; then
            [[ $pending == --state-dir ]] && state=$plain
            pending=''
        elif [[ -z $dashes && $plain == -- ]]; then
            dashes=1
        elif [[ -z $dashes && $plain == -?* ]]; then
            used+="${plain%%=*} "
            _orchctl_option "${plain%%=*}"
            if [[ -n $kind && $plain != *=* ]]; then
                pending=$plain
            elif [[ $plain == --state-dir=* ]]; then
                state=${plain#*=}
            fi
        elif [[ -n $commands ]]; then
            [[ " $commands " == *" $plain "* ]] || plain='?'
            command+=" $plain"
            _orchctl_command "${command# }"
        else
            seen=$((seen + 1)) given+="$plain "
        fi
    done
}

_orchctl() {
    # The operator's options must neither end the shell from in here nor touch what is read.
    local -
    set +euET -f
    local IFS=$' \t\n' commands arguments options everywhere='--config:directory --state-dir:directory --api-url:none --json --no-color --verbose'
    local lead='' prefix='' value='' kind='' pending='' dashes='' command='' used=' ' given=' ' seen=0 plain
    local state=${ORCHCTL_STATE_DIR:-${XDG_STATE_HOME:-${HOME-}/.local/state}/orchctl}
    local -a words=()
    COMPREPLY=()
    _orchctl_words
    [[ ${#words[@]} -gt 1 ]] || return 0
    _orchctl_command ''
    _orchctl_read
    _orchctl_plain "$lead"
    lead=$plain
    _orchctl_plain "${words[-1]}"
    value=$plain
    if [[ -n $pending ]]; then
        _orchctl_option "$pending"
        _orchctl_offer_value
    elif [[ -z $dashes && $value == --*=* ]]; then
        prefix=${value%%=*}= value=${value#*=}
        _orchctl_option "${prefix%=}" && _orchctl_offer_value
    elif [[ -z $dashes && $value == -* ]]; then
        _orchctl_offer_options
    elif [[ -n $commands ]]; then
        _orchctl_offer $commands
    elif _orchctl_argument; then
        _orchctl_offer_value
    elif [[ -z $dashes && -z $value ]]; then
        _orchctl_offer_options
    fi
    return 0
}

complete -F _orchctl orchctl
