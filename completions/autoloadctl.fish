# Made by scripts/manual from the parser of autoloadctl.

# Print what stands before the cursor: COMMAND:NUMBER, behind COMMAND and so many operands; the
# number of the first operand's word, or 0; and an option that takes all words up to the next one.
function __autoloadctl_place
    set -l words (commandline -opc)
    set -l command
    set -l operands 0
    set -l first 0
    set -l many
    set -l plain 0
    set -l i 1
    while test $i -lt (count $words)
        set i (math $i + 1)
        set -l word $words[$i]
        if test $plain = 0; and string match -q -- '-?*' $word
            set many
            switch $word
                case --
                    set plain 1
                case --fpath
                    set many $word
                case --socket --timeout --producer --binary --mtime --fingerprint-file --sync --layout --max-age --env --file --packages --shell --kind --status --pid --rc --cache-dir
                    set i (math $i + 1)
            end
        else if set -q many[1]
            continue
        else if not set -q command[1]
            set command $word
        else
            test $operands = 0; and set first $i
            test $operands = 2; or set operands (math $operands + 1)
            contains -- $command cached; and set plain 1
        end
    end
    printf '%s\n' "$command:$operands" $first $many
end

# Whether the cursor is at one of these places, or behind one of these options.
function __autoloadctl_at
    set -l place (__autoloadctl_place)
    for pattern in $argv
        string match -q -- $pattern $place[1] $place[3..3]; and return 0
    end
    return 1
end

# A tool's own words, as they are completed where it stands first.
function __autoloadctl_command_line
    set -l words (commandline -opc)
    set -l first (__autoloadctl_place)[2]
    set -l line "$(commandline -ct)"
    test $first -gt 0; and set -p line (string escape -- $words[$first..])
    # No tool has such a name, and `complete` would take it for an option of its own.
    string match -q -- '-*' "$line"; or complete -C "$line"
end

# Run `autoloadctl $argv` with the --socket and --producer that were typed; an answer is waited for
# half a second.
function __autoloadctl_ask
    set -l words (commandline -opc)
    set -l given
    for i in (seq 2 (count $words))
        switch $words[$i]
            case --
                break
            case --socket --producer
                set -l value $words[(math $i + 1)]
                set -q value[1]
                and set -a given $words[$i] (string replace -r '^~/' "$HOME/" -- $value)
            case '--socket=*' '--producer=*'
                set -a given $words[$i]
        end
    end
    command $words[1] $argv[1] --timeout 0.5 $given $argv[2..] 2>/dev/null
end

function __autoloadctl_entries
    # An option, unless what stands before says that there are no more.
    string match -q -- '-*' (commandline -ct)
    and not contains -- -- (commandline -opc)
    and return
    set -l prefix (commandline -ct | string unescape)
    __autoloadctl_ask ls -- "$prefix"
end

# The first line of the table is a heading.
function __autoloadctl_shards -a column
    __autoloadctl_ask shards | string replace -r -a ' +' ' ' | string split -f $column ' ' | sed 1d
end

complete -c autoloadctl -f
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a get -d 'write entries to stdout'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a put -d 'store an entry from a file or stdin'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a ls -d 'list the names that are there'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a missing -d 'list those of the given names that are absent or stale'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a rm -d 'remove entries'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a count -d 'count the entries'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a stats -d 'show entries, sizes, hits and misses'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a clear -d 'remove all entries of a producer, without asking'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a flush -d 'wait until everything is on stable storage'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a warm -d 'compile and cache a shell\'s autoload functions'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a import -d 'take entries over from a file'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a export -d 'write a producer\'s entries to a file'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a publish -d 'lay the cached functions out for zsh, as one compiled file'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a cached -d 'print what a tool prints, out of the cache'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a shell -d 'switch autoloadd on or off in a shell\'s start-up file'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a why -d 'say why what is cached is used, or is not'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a status -d 'show how the daemon is'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a ping -d 'see whether the daemon answers'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a shards -d 'list whose entries are cached'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a drop -d 'remove a shard with all its entries, without asking'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a shutdown -d 'stop the daemon without asking, after everything is on disk'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a version -d 'show the versions of autoloadctl and of the daemon'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -a verify -d 'check every file of the cache, without the daemon'
complete -c autoloadctl -n '__autoloadctl_at "get:*" "put:0" "ls:0" "missing:*" "rm:*"' -a '(__autoloadctl_entries)'
complete -c autoloadctl -n '__autoloadctl_at "put:1" "import:1" "import:2" "export:1" "export:2"' -F
complete -c autoloadctl -n '__autoloadctl_at "warm:0" "publish:0"' -a 'zsh'
complete -c autoloadctl -n '__autoloadctl_at "warm:1" "warm:2"' -a '(__fish_complete_directories)'
complete -c autoloadctl -n '__autoloadctl_at "import:0" "export:0"' -F -a 'zshrs'
complete -c autoloadctl -n '__autoloadctl_at "cached:0"' -a '(__autoloadctl_command_line)'
complete -c autoloadctl -n '__autoloadctl_at "cached:1" "cached:2" "why:1" "why:2"' -a '(__autoloadctl_command_line)'
complete -c autoloadctl -n '__autoloadctl_at "shell:0"' -a 'install uninstall status'
complete -c autoloadctl -n '__autoloadctl_at "shell:1"' -a 'zsh bash fish'
complete -c autoloadctl -n '__autoloadctl_at "why:0"' -a '(__autoloadctl_entries; __autoloadctl_command_line)'
complete -c autoloadctl -n '__autoloadctl_at "drop:0" "verify:*"' -a '(__autoloadctl_shards 1)'
complete -c autoloadctl -n '__autoloadctl_at "--fpath"' -a '(__fish_complete_directories)'
complete -c autoloadctl -n '__autoloadctl_at ":*" "get:*" "put:*" "ls:*" "missing:*" "rm:*" "count:*" "stats:*" "clear:*" "flush:*" "warm:*" "import:*" "export:*" "publish:*" "cached:0" "shell:*" "why:*" "status:*" "ping:*" "shards:*" "drop:*" "shutdown:*" "version:*" "verify:*"' -s h -l help -d 'show this help message and exit'
complete -c autoloadctl -n '__autoloadctl_at ":*"' -l version -d 'show autoloadctl\'s version and exit'
complete -c autoloadctl -n '__autoloadctl_at ":*" "get:*" "put:*" "ls:*" "missing:*" "rm:*" "count:*" "stats:*" "clear:*" "flush:*" "warm:*" "import:*" "export:*" "publish:*" "cached:0" "shell:*" "why:*" "status:*" "ping:*" "shards:*" "drop:*" "shutdown:*" "version:*" "verify:*"' -l socket -r -F -d 'the daemon\'s socket'
complete -c autoloadctl -n '__autoloadctl_at ":*" "get:*" "put:*" "ls:*" "missing:*" "rm:*" "count:*" "stats:*" "clear:*" "flush:*" "warm:*" "import:*" "export:*" "publish:*" "cached:0" "shell:*" "why:*" "status:*" "ping:*" "shards:*" "drop:*" "shutdown:*" "version:*" "verify:*"' -l timeout -x -d 'the longest wait for an answer (default: 1, for writes 15)'
complete -c autoloadctl -n '__autoloadctl_at ":*" "get:*" "put:*" "ls:*" "missing:*" "rm:*" "count:*" "stats:*" "clear:*" "flush:*" "warm:*" "import:*" "export:*" "publish:*" "cached:0" "shell:*" "why:*" "status:*" "ping:*" "shards:*" "drop:*" "shutdown:*" "version:*" "verify:*"' -l json -d 'print JSON: exact numbers, raw names'
complete -c autoloadctl -n '__autoloadctl_at ":*" "get:*" "put:*" "ls:*" "missing:*" "rm:*" "count:*" "stats:*" "clear:*" "flush:*" "warm:*" "export:*" "publish:*"' -l producer -x -a '(__autoloadctl_shards 2)' -d 'whose entries, such as zsh/5.9/8 (default: AUTOLOADD_PRODUCER, or the only one there is)'
complete -c autoloadctl -n '__autoloadctl_at ":*" "get:*" "put:*" "ls:*" "missing:*" "rm:*" "count:*" "stats:*" "clear:*" "flush:*" "warm:*" "export:*" "publish:*"' -l binary -r -F -d 'the shell\'s program: entries older than it are stale'
complete -c autoloadctl -n '__autoloadctl_at ":*" "get:*" "put:*" "ls:*" "missing:*" "rm:*" "count:*" "stats:*" "clear:*" "flush:*" "warm:*" "export:*" "publish:*"' -l mtime -x -d 'the same as a time, in ns since 1970'
complete -c autoloadctl -n '__autoloadctl_at "get:*"' -l fingerprint-file -r -F -d 'only what was stored with the fingerprint of this file as it is now'
complete -c autoloadctl -n '__autoloadctl_at "put:*"' -l fingerprint-file -r -F -d 'store it with the fingerprint of this file: stale when the file changes'
complete -c autoloadctl -n '__autoloadctl_at "put:*" "rm:*" "clear:*" "import:*"' -l sync -x -a 'memory write fsync' -d 'when it counts as stored: applied, handed to the system (survives a crash of the daemon; the default), or on stable storage (survives power loss)'
complete -c autoloadctl -n '__autoloadctl_at "import:*"' -l dry-run -d 'say what would be imported, and change nothing'
complete -c autoloadctl -n '__autoloadctl_at "export:*"' -l layout -x -a '1.95 1.63' -d 'the order of fields in zshrs\'s file: that of the rustc it was built with (default: 1.95)'
complete -c autoloadctl -n '__autoloadctl_at "publish:*"' -l fpath -x -a '(__fish_complete_directories)' -d 'where functions are, in zsh\'s order (default: the fpath that zsh has without startup files)'
complete -c autoloadctl -n '__autoloadctl_at "publish:*"' -l print-dir -d 'print the directory for this --fpath, and do nothing'
complete -c autoloadctl -n '__autoloadctl_at "publish:*"' -l dry-run -d 'say what would be done, and do nothing'
complete -c autoloadctl -n '__autoloadctl_at "cached:0"' -l max-age -x -d 'run it again after 90, 15m, 12h, 7d'
complete -c autoloadctl -n '__autoloadctl_at "cached:0"' -l env -x -a '(set -nx)' -d 'run it again when this variable differs; may be repeated'
complete -c autoloadctl -n '__autoloadctl_at "cached:0"' -l file -r -F -d 'run it again when this file differs; may be repeated'
complete -c autoloadctl -n '__autoloadctl_at "cached:0"' -l packages -x -a 'python' -d 'run it again when a Python package comes or goes beside the tool'
complete -c autoloadctl -n '__autoloadctl_at "cached:0"' -l shell -x -d 'who asks: it is a part of the key'
complete -c autoloadctl -n '__autoloadctl_at "cached:0"' -l kind -x -a 'eval complete' -d 'what for (default: eval)'
complete -c autoloadctl -n '__autoloadctl_at "cached:0"' -l status -x -d 'the status of a good run (default: 0)'
complete -c autoloadctl -n '__autoloadctl_at "cached:0"' -l pid -x -a '(__fish_complete_pids)' -d 'the shell that asks (default: the parent)'
complete -c autoloadctl -n '__autoloadctl_at "shell:*"' -l rc -r -F -d 'the start-up file, where it is not the usual'
complete -c autoloadctl -n '__autoloadctl_at "shell:*"' -l dry-run -d 'show the line, and change nothing'
complete -c autoloadctl -n '__autoloadctl_at "why:*"' -l max-age -x -d 'also say what is older than this: 90, 15m, 12h, 7d'
complete -c autoloadctl -n '__autoloadctl_at "why:*"' -l fpath -x -a '(__fish_complete_directories)' -d 'where zsh looks (default: without startup files)'
complete -c autoloadctl -n '__autoloadctl_at "verify:*"' -l cache-dir -x -a '(__fish_complete_directories)' -d 'the cache to check (default: the daemon\'s usual one)'
