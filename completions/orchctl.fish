# fish completion for orchctl, written by `orchctl completions fish`. Needs fish 3.5 and GNU date.
# Job names and run ids come from plain files that orchctl keeps: no Python is started, and for names no process.

# Sets what the command $argv[1] (`runs show`) takes, names each followed by their help. An option is NAME|NAME:KIND,
# an argument KIND; the KIND `=a,b` is a choice of words, and `...` at the end means any number of times.
function __orchctl_command --no-scope-shadowing
    set commands
    set arguments
    set options
    switch "$argv[1]"
        case ''
            set commands \
                'check' 'Validate the catalog, offline: every problem at once, with file, line, table and key' \
                'jobs' 'Show what the catalog says: all jobs, or one whole, its steps drawn in the order in which they run' \
                'plan' 'Show what `sync` would change, field by field' \
                'sync' 'Make Prefect\'s deployments what the catalog says' \
                'status' 'Show who owns each job, what starts it, what ran last, what is next, and what is wrong' \
                'cutover' 'Make Prefect the owner of jobs: first the gates, then a question, then each job on its own' \
                'confirm' 'Keep a cutover: nothing rolls it back by itself any more' \
                'rollback' 'Make legacy the owner of jobs again' \
                'recover' 'Bring every job of this host to a legal state: go on with what was interrupted, put right what has drifted' \
                'run' 'Run a job now, by hand, through Prefect' \
                'backfill' 'Run a job for each date of a period, through Prefect, without getting in the way of its slots' \
                'legacy' 'Show what starts each job on this host now: timers of both scopes, cron lines, and what is odd about them' \
                'completions' 'Print the completion script of a shell' \
                'demo' 'Show everything on real parts: a small catalog, a server, a worker, runs' \
                'doctor' 'Check this host: catalog, packages, server, worker, schedules, triggers, files, clock, backups, alerts' \
                'runs' 'List what ran; show one run, or its log' \
                'publish' 'Show what is published; move production to another run' \
                'contract' 'List data contracts; try one on a file' \
                'alerts' 'Tell people what goes wrong: channels and routes' \
                'host' 'Prefect\'s server and workers on this host' \
                'import' 'Turn what starts jobs today into entries of the catalog' \
                'schedule' 'When a job is due, and how that differs from what starts it today' \
                'watchdog' 'Look at server, workers, slots and disks from outside Prefect, and tell what is wrong'
            set options \
                '--version' 'Print the version and exit' \
                '--help|-h' 'Show this message and exit'
        case 'check'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'jobs'
            set arguments 'job'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'plan'
            set arguments 'job...'
            set options \
                '--prune' 'Delete deployments of this catalog whose job is gone from it' \
                '--help|-h' 'Show this message and exit'
        case 'sync'
            set arguments 'job...'
            set options \
                '--prune' 'Delete deployments of this catalog whose job is gone from it' \
                '--dry-run' 'The same as `plan`' \
                '--yes' 'Do not ask before deleting' \
                '--help|-h' 'Show this message and exit'
        case 'status'
            set arguments 'job'
            set options \
                '--watch' 'Look again every few seconds, until Ctrl-C' \
                '--check' 'Exit code 3 where anything is wrong' \
                '--help|-h' 'Show this message and exit'
        case 'cutover'
            set arguments 'job...'
            set options \
                '--dry-run' 'Show gates and steps; change nothing' \
                '--wait' 'Wait for a legacy run that is going' \
                '--yes' 'Do not ask' \
                '--waive:none...' 'Do it although this gate does not hold; WHY is recorded' \
                '--confirm-within:none' 'Roll it back by itself unless `confirm` comes before' \
                '--help|-h' 'Show this message and exit'
        case 'confirm'
            set arguments 'job'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'rollback'
            set arguments 'job...'
            set options \
                '--now' 'Stop a run that is going, and do not wait for it' \
                '--dry-run' 'Show the steps; change nothing' \
                '--yes' 'Do not ask' \
                '--help|-h' 'Show this message and exit'
        case 'recover'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'run'
            set arguments 'job'
            set options \
                '--date:date' 'The game_date; default: by the job\'s rule from now' \
                '--as-of:instant' 'The run_as_of_ts, like 2025-12-19T05:00:00Z; default: now' \
                '--as-of-mode:none' 'Take the run_as_of_ts from this mode of the job' \
                '--execution:none' 'For once, run it so; default: as synced' \
                '--param:none...' 'A key of the partition; repeatable' \
                '--wait' 'Show the log as it comes and exit with the run\'s own exit code' \
                '--help|-h' 'Show this message and exit'
        case 'backfill'
            set arguments 'job'
            set options \
                '--start:date' 'The first game_date' \
                '--end:date' 'The last game_date, included' \
                '--steps:none' 'Only these steps of the job' \
                '--as-of-mode:none' 'Where each date\'s run_as_of_ts comes from; default: now' \
                '--param:none...' 'A key of the partition, the same for every date; repeatable' \
                '--max-parallel:none' 'With --wait: at most N at a time; default: the job\'s' \
                '--only-missed' 'Only dates for which no run has succeeded yet, whoever ran it' \
                '--failed' 'Only dates whose newest run failed' \
                '--force' 'Every date anew, also those that succeeded in this backfill' \
                '--dry-run' 'List the dates and what would be read; change nothing' \
                '--no-resume' 'Give a date that failed a new run, of all its steps' \
                '--wait' 'Show how it goes, and sum up at the end' \
                '--help|-h' 'Show this message and exit'
        case 'legacy'
            set arguments 'job'
            set options \
                '--all' 'Also list each timer that is off or came with the distribution' \
                '--help|-h' 'Show this message and exit'
        case 'completions'
            set arguments '=bash,zsh,fish'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'demo'
            set options \
                '--keep' 'Leave it all running, and say where it is' \
                '--steps' 'The story of a job of steps: contracts, retries, publishing, backfill' \
                '--help|-h' 'Show this message and exit'
        case 'doctor'
            set arguments 'none...'
            set options \
                '--list' 'Show what each check asks, and check nothing' \
                '--strict' 'Exit code 3 for warnings, and for what is not known, too' \
                '--help|-h' 'Show this message and exit'
        case 'runs'
            set commands \
                'show' 'Show everything about a run, its steps in time, and where its log, manifest and page in Prefect\'s UI are' \
                'logs' 'Print the log of a run: all it wrote, every attempt, secrets masked; that of a legacy run is in the journal' \
                'retry' 'Run a run again that has ended, as the same run: steps that succeeded, and whose files are there, are kept' \
                'reindex' 'Add to the events what the manifests know and the events do not' \
                'audit' 'Hold the slots that were due against what ran, in systemd and in Prefect'
            set options \
                '--date:date' 'Runs that started on this day in the catalog\'s zone; default: today' \
                '--job:job' 'Only of this job' \
                '--status:=running,success,failed,skipped,crashed,cancelled,observed' 'Only running, success, failed, skipped, crashed, cancelled or observed' \
                '--since:date' 'Runs since 2h, 2025-12-19 or an instant, instead of one day' \
                '--limit:none' 'Only the newest N' \
                '--help|-h' 'Show this message and exit'
        case 'runs show'
            set arguments 'run'
            set options \
                '--svg:file' 'Also draw the steps of the run, as SVG, to a file' \
                '--help|-h' 'Show this message and exit'
        case 'runs logs'
            set arguments 'run'
            set options \
                '--follow|-f' 'Go on until the run has ended' \
                '--step:none' 'Only of this step; default: all, each named' \
                '--help|-h' 'Show this message and exit'
        case 'runs retry'
            set arguments 'run'
            set options \
                '--from:none' 'Run this step again, and all that need it, whatever they did' \
                '--force' 'Also a run that has succeeded' \
                '--wait' 'Show the log as it comes and exit with the run\'s own exit code' \
                '--help|-h' 'Show this message and exit'
        case 'runs reindex'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'runs audit'
            set options \
                '--date:date' 'Slots of this day in the catalog\'s zone; default: today' \
                '--since:date' 'Slots since 2h, 2025-12-19 or an instant, instead of one day' \
                '--job:job' 'Only of this job' \
                '--help|-h' 'Show this message and exit'
        case 'publish'
            set commands \
                'show' 'Show the published runs of an asset and a date, and which of them the pointers hold' \
                'promote' 'Move current_run.json to the newest good run' \
                'rollback' 'Move current_run.json back to the run it held before; again, and it is where it was'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'publish show'
            set arguments 'asset'
            set options \
                '--date:date' 'The game_date' \
                '--help|-h' 'Show this message and exit'
        case 'publish promote'
            set arguments 'asset'
            set options \
                '--date:date' 'The game_date' \
                '--run:run' 'To this run: its id, or a part that is unique' \
                '--reason:none' 'Why, for the record' \
                '--yes' 'Do not ask' \
                '--help|-h' 'Show this message and exit'
        case 'publish rollback'
            set arguments 'asset'
            set options \
                '--date:date' 'The game_date' \
                '--run:run' 'To this run: its id, or a part that is unique' \
                '--reason:none' 'Why, for the record' \
                '--yes' 'Do not ask' \
                '--help|-h' 'Show this message and exit'
        case 'contract'
            set commands \
                'list' 'List the contracts of contracts.toml, and the steps that name each' \
                'check' 'Check a file against a contract: every finding at once'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'contract list'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'contract check'
            set arguments 'contract' 'file'
            set options \
                '--as-of:instant' 'The run_as_of_ts that ages count from; default: now' \
                '--snapshot:instant' 'When the file\'s snapshot was taken, for a contract that says how old that may be' \
                '--help|-h' 'Show this message and exit'
        case 'alerts'
            set commands \
                'list' 'List channels and routes of alerts.toml: how each channel answered last, and whether Prefect has the routes' \
                'apply' 'Make Prefect\'s blocks and automations what alerts.toml says' \
                'test' 'Send a test message through a channel, or through each, and show what the receiver answered'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'alerts list'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'alerts apply'
            set options \
                '--dry-run' 'Show what would change; exit code 3 if anything' \
                '--yes' 'Do not ask before deleting' \
                '--help|-h' 'Show this message and exit'
        case 'alerts test'
            set arguments 'none'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'host'
            set commands \
                'up' 'Start server and worker where they are not running, and wait until runs are really scheduled' \
                'down' 'Stop worker and server' \
                'status' 'Show whether server and worker run and answer' \
                'restart' 'Stop what is installed and start it again, and wait until it works' \
                'logs' 'Show what server and worker said: from the journal where they are installed, else from their files' \
                'install' 'Install server and workers as units of systemd, start them, and wait until runs are really scheduled' \
                'uninstall' 'Stop what `host install` installed, and take back all that it added' \
                'backup' 'Make an archive of Prefect\'s database, the state directory, the catalog and the settings, while all runs' \
                'verify' 'Restore an archive on trial: every digest, its database in a server of its own, its counts' \
                'restore' 'Put an archive in place of what is there, which stays beside as `…before-<time>`' \
                'prune' 'Remove, or compress, what runs left and is older than `[retention]` of jobs.toml says' \
                'upgrade' 'Upgrade Prefect under the installed server and workers, and put all back where that does not work' \
                'database' 'Prefect\'s database of this host'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'host up'
            set options \
                '--port:none' 'Port of the server on 127.0.0.1; 0 takes a free one' \
                '--help|-h' 'Show this message and exit'
        case 'host down'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'host status'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'host restart'
            set arguments 'none'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'host logs'
            set arguments 'none'
            set options \
                '--lines|-n:none' 'How many lines to begin with' \
                '--follow|-f' 'Go on until Ctrl-C' \
                '--help|-h' 'Show this message and exit'
        case 'host install'
            set options \
                '--scope:none' 'Whose units: system (the default as root) or user' \
                '--user:none' 'Who runs server and jobs; under sudo, who called it' \
                '--port:none' 'Port of the server on 127.0.0.1; 0 takes a free one. [4200]' \
                '--database:none' 'sqlite, or postgresql://USER@HOST/DB. [sqlite]' \
                '--database-file:file' 'A file, mode 600, with the URL and its password [env: ORCHCTL_DATABASE_URL]' \
                '--no-server|--server' 'Without: only workers, for the server that --api-url names' \
                '--pool:none...' 'A work pool that this host serves; repeatable. [all]' \
                '--dry-run' 'Only show; exit 3 if something would change' \
                '--yes|-y' 'Do not ask' \
                '--help|-h' 'Show this message and exit'
        case 'host uninstall'
            set options \
                '--yes|-y' 'Do not ask' \
                '--help|-h' 'Show this message and exit'
        case 'host backup'
            set options \
                '--to:directory' 'Where to put it; default: backups in the state directory' \
                '--keep:none' 'Then remove all but the newest N of this host\'s in there' \
                '--help|-h' 'Show this message and exit'
        case 'host verify'
            set arguments 'file'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'host restore'
            set arguments 'file'
            set options \
                '--only:none' 'Some of database,state,catalog; default: all three' \
                '--dry-run' 'Look at the archive; change nothing' \
                '--yes' 'Do not ask' \
                '--help|-h' 'Show this message and exit'
        case 'host prune'
            set options \
                '--older-than:none' 'Such as 90d, instead of the policy\'s: of Prefect\'s history, or of --only' \
                '--only:none' 'Some of history,compress_logs,logs,manifests,state' \
                '--dry-run' 'Only show what would go; exit code 3 where something would' \
                '--yes' 'Do not ask' \
                '--help|-h' 'Show this message and exit'
        case 'host upgrade'
            set options \
                '--prefect:none' 'Default: the newest that this orchctl works with' \
                '--requirement:none...' 'More to install, as pip has it; may be repeated' \
                '--constraints:file' 'A file of pip\'s constraints' \
                '--to:directory' 'Where backups go; default: backups in the state directory' \
                '--patience:none' 'How long runs that are at work are waited for' \
                '--now' 'End the runs that are at work, do not wait' \
                '--dry-run' 'Only show; exit 3 if something would change' \
                '--yes|-y' 'Do not ask' \
                '--help|-h' 'Show this message and exit'
        case 'host database'
            set commands \
                'move' 'Refuse to move Prefect\'s database between SQLite and PostgreSQL, and say what can be done instead'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'host database move'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'import'
            set commands \
                'systemd' 'Turn systemd timers and their services into jobs' \
                'cron' 'Turn the lines of a crontab into jobs'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'import systemd'
            set arguments 'none...'
            set options \
                '--scope:none' 'Whose timers' \
                '--write' 'Add to the catalog\'s files, instead of printing what to add' \
                '--data-root:directory' 'For a new catalog: root of its data; default: orchctl in $XDG_DATA_HOME' \
                '--work-pool:none' 'For a new catalog: Prefect\'s work pool' \
                '--help|-h' 'Show this message and exit'
        case 'import cron'
            set arguments 'none'
            set options \
                '--user:none' 'Whose crontab; default: yours' \
                '--system' 'Its lines name a user, as those of /etc/crontab and /etc/cron.d' \
                '--write' 'Add to the catalog\'s files, instead of printing what to add' \
                '--data-root:directory' 'For a new catalog: root of its data; default: orchctl in $XDG_DATA_HOME' \
                '--work-pool:none' 'For a new catalog: Prefect\'s work pool' \
                '--help|-h' 'Show this message and exit'
        case 'schedule'
            set commands \
                'next' 'Show when a job is next due: local time, UTC, changes of clocks, and what starts it today' \
                'compare' 'Compare what starts a job today with its schedules, instant by instant'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'schedule next'
            set arguments 'job'
            set options \
                '--count:none' 'How many of each schedule' \
                '--help|-h' 'Show this message and exit'
        case 'schedule compare'
            set arguments 'job'
            set options \
                '--days:none' 'How far ahead, from now' \
                '--help|-h' 'Show this message and exit'
        case 'watchdog'
            set commands \
                'install' 'Write and start a timer that looks every minute: root\'s in the system\'s systemd, else in the user\'s own' \
                'uninstall' 'Stop the timer and remove what `watchdog install` wrote' \
                'status' 'Show whether the timer looks, what is open, and how each channel answered last'
            set options \
                '--dry-run' 'Show what is wrong and what would be told; send and remember nothing' \
                '--help|-h' 'Show this message and exit'
        case 'watchdog install'
            set options \
                '--env-file:file...' 'A file of KEY=value lines with secrets of channels, mode 0600' \
                '--dry-run' 'Show the units; change nothing' \
                '--help|-h' 'Show this message and exit'
        case 'watchdog uninstall'
            set options \
                '--help|-h' 'Show this message and exit'
        case 'watchdog status'
            set options \
                '--help|-h' 'Show this message and exit'
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
        '--config:directory' 'Folder of jobs.toml and schedules.toml [env: ORCHCTL_CONFIG]' \
        '--state-dir:directory' 'What orchctl remembers of this host [env: ORCHCTL_STATE_DIR]' \
        '--api-url:none' 'The Prefect API [env: PREFECT_API_URL]' \
        '--json' 'Print one JSON object instead of text' \
        '--no-color' 'No colour [env: NO_COLOR]' \
        '--verbose' 'Say more; tracebacks of unexpected errors'
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
