"""The fish script for completion: an engine that is the same for every tree, and the tree as one `switch`."""

from __future__ import annotations

from orchctl.cli.completion_tree import Argument, Command, Option, Value

_TEMPLATE = r"""# fish completion for orchctl, written by `orchctl completions fish`. Needs fish 3.5 and GNU date.
# Job names and run ids come from plain files that orchctl keeps: no Python is started, and for names no process.

# Sets what the command $argv[1] (`runs show`) takes, names each followed by their help. An option is NAME|NAME:KIND,
# an argument KIND; the KIND `=a,b` is a choice of words, and `...` at the end means any number of times.
function __orchctl_command --no-scope-shadowing
    set commands
    set arguments
    set options
    switch "$argv[1]"
@COMMANDS@
    end
end

# Sets `kind` to what the option $argv[1] takes, empty for a flag. False for an option that is not known here.
function __orchctl_option --no-scope-shadowing
    set kind ''
    set -l pairs $options $everywhere
    while set -q pairs[1]
        set -l entry (string replace -r '\.\.\.$' '' -- $pairs[1] | string split -m 1 :)
        if contains -- "$argv[1]" (string split '|' -- $entry[1])
            set -q entry[2]; and set kind $entry[2]
            return 0
        end
        set -e pairs[1..2]
    end
    return 1
end

# Prints the pairs of a word and its help in $argv.
function __orchctl_offer_pairs
    while set -q argv[1]
        printf '%s\t%s\n' $argv[1] $argv[2]
        set -e argv[1..2]
    end
end

function __orchctl_offer_options --no-scope-shadowing
    set -l pairs $options $everywhere
    while set -q pairs[1]
        set -l names (string split '|' -- (string replace -r '(:.*|\.\.\.)$' '' -- $pairs[1]))
        set -l again (string match -r '\.\.\.$' -- $pairs[1])
        set -l found
        for name in $names
            set -a found $name $pairs[2]
            contains -- $name $used; and not set -q again[1]; and set pairs[1] used
        end
        test "$pairs[1]" = used; or __orchctl_offer_pairs $found
        set -e pairs[1..2]
    end
end

# Prints the lines of the file $argv[1]; nothing where it cannot be read.
function __orchctl_lines
    test -f "$argv[1]" -a -r "$argv[1]"; and string match -r '.+' <$argv[1]
end

# Prints today and yesterday as $argv has it (a zone for `date`); both are taken at noon, where no clock changes.
function __orchctl_days
    printf '%s\n' 'today 12:00' 'yesterday 12:00' | command date $argv -f - +%Y-%m-%d 2>/dev/null
end

# Offers the names in the file $argv[1]s. What is not a name is not offered, whatever the file holds.
function __orchctl_offer_names --no-scope-shadowing
    for name in (__orchctl_lines $state/completion/$argv[1]s | string match -r '^[a-z0-9][a-z0-9_.-]{0,62}$')
        contains -- $name $given; or printf '%s\t%s\n' $name $argv[1]
    end
end

function __orchctl_offer_runs --no-scope-shadowing
    set -l ids
    set -l days (__orchctl_days -u)
    for folder in (__orchctl_lines $state/completion/events | string match -r '^/.*')
        for day in $days
            set -l file $folder/$day.jsonl
            test -f $file -a -r $file; or continue
            set -a ids (string match -arg '"run_id": *"(\d{8}T\d{6}Z-[0-9a-f]{6})"' <$file)
        end
    end
    for id in (path sort -ru -- $ids)
        contains -- $id $given; or printf '%s\trun\n' $id
    end
end

# Prints what the kind $argv[1] offers for a word that begins with $argv[2].
function __orchctl_offer_value --no-scope-shadowing
    switch "$argv[1]"
        case '=*'
            string sub -s 2 -- $argv[1] | string split ,
        case job asset contract
            __orchctl_offer_names $argv[1]
        case run
            __orchctl_offer_runs
        case date
            __orchctl_days
        case instant
            string replace -r '$' T00:00:00Z -- (__orchctl_days -u)
        case directory
            __fish_complete_directories $argv[2]
        case file
            __fish_complete_path $argv[2]
    end
end

# Prints the kind of the next positional argument; false where there is none.
function __orchctl_argument --no-scope-shadowing
    for entry in $arguments
        if string match -q '*...' -- $entry; or test (count $given) -eq 0
            string replace '...' '' -- $entry
            return 0
        end
        set -e given[1]
    end
    return 1
end

# Reads the words $argv before the one at the cursor.
function __orchctl_read --no-scope-shadowing
    for word in $argv
        set -l name (string split -m 1 = -- $word)[1]
        if test -n "$pending"
            test "$pending" = --state-dir; and set state (string replace -r '^~(?=/)' -- $HOME $word)
            set pending ''
        else if test -z "$dashes" -a "$word" = --
            set dashes 1
        else if test -z "$dashes"; and string match -q -- '-?*' $word
            set -a used $name
            __orchctl_option $name
            if test -n "$kind"; and not string match -q -- '*=*' $word
                set pending $word
            else if test "$name" = --state-dir
                set state (string split -m 1 = -- $word)[2]
            end
        else if set -q commands[1]
            set command (string trim -- "$command $word")
            __orchctl_command $command
        else
            set -a given $word
        end
    end
end

function __orchctl_complete
    set -l words (commandline -opc)
    set -l value (commandline -ct)
    set -l kind ''
    set -l pending ''
    set -l dashes ''
    set -l command ''
    set -l commands
    set -l arguments
    set -l options
    set -l used
    set -l given
    set -l state $HOME/.local/state/orchctl
    test -n "$XDG_STATE_HOME"; and set state $XDG_STATE_HOME/orchctl
    test -n "$ORCHCTL_STATE_DIR"; and set state $ORCHCTL_STATE_DIR
    set -l everywhere \
@EVERYWHERE@
    __orchctl_command ''
    __orchctl_read $words[2..-1]
    if test -n "$pending"
        __orchctl_option $pending
        __orchctl_offer_value $kind $value
    else if test -z "$dashes"; and string match -q -- '--*=*' $value
        set -l parts (string split -m 1 = -- $value)
        __orchctl_option $parts[1]; and string replace -r '^' -- $parts[1]= (__orchctl_offer_value $kind $parts[2])
    else if test -z "$dashes"; and string match -q -- '-*' $value
        __orchctl_offer_options
    else if set -q commands[1]
        __orchctl_offer_pairs $commands
    else if set kind (__orchctl_argument)
        __orchctl_offer_value $kind $value
    else if test -z "$dashes$value"
        __orchctl_offer_options
    end
end

complete -c orchctl -f -k -a '(__orchctl_complete)'
"""


def script(root: Command) -> str:
    """Return the script for this tree."""
    commands = "\n".join(_case(path, command) for path, command in root.walk())
    everywhere = _options(root.everywhere, 8)
    return _TEMPLATE.replace("@COMMANDS@", commands).replace("@EVERYWHERE@", everywhere)


def _case(path: tuple[str, ...], command: Command) -> str:
    below = _entries([(child.name, child.help) for child in command.commands], 16)
    arguments = " ".join(_quoted(entry) for argument in command.arguments for entry in _argument(argument))
    parts = [f"        case {_quoted(' '.join(path))}"]
    if below:
        parts.append(f"            set commands \\\n{below}")
    if arguments:
        parts.append(f"            set arguments {arguments}")
    if command.options:
        parts.append(f"            set options \\\n{_options(command.options, 16)}")
    return "\n".join(parts)


def _options(options: tuple[Option, ...], indent: int) -> str:
    return _entries([(_option(option), option.help) for option in options], indent)


def _entries(entries: list[tuple[str, str]], indent: int) -> str:
    return " \\\n".join(f"{' ' * indent}{_quoted(entry)} {_quoted(text)}" for entry, text in entries)


def _option(option: Option) -> str:
    names = "|".join(option.names) + (f":{_kind(option.value)}" if option.value else "")
    return names + ("..." if option.repeatable else "")


def _argument(argument: Argument) -> list[str]:
    kind = _kind(argument.value)
    return [f"{kind}..."] if argument.count is None else [kind] * argument.count


def _kind(value: Value) -> str:
    return "=" + ",".join(value.words) if value.kind == "words" else value.kind


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
