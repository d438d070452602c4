# autoloadd for fish 3.6 and later: what slow tools print, from the cache.
#
#   source /path/to/autoloadd.fish                 in conf.d or config.fish
#   autoloadd-eval [--max-age 1d] [--env NAME]... TOOL ARGS...     for `TOOL ARGS | source`
#   autoloadd-complete TOOL...                     the completion that TOOL has, from the cache
#
# docs/shells.md says what is cached and what is not. Whatever goes wrong with the cache, the shell
# does what it would have done without it, and says nothing.

# What came with 3.5. An older fish does without us.
builtin -q path
or return 0

# How the client is started: by its own Python without `site`, which is a third of its time. Where
# it is not found, nothing is asked.
function __autoloadd_find_client --argument-names package
    set -g __autoloadd_client
    set -l program (command -s autoloadctl)
    # Never one of the directory where we happen to stand.
    string match -q '/*' -- $program
    or return 0
    set -l line
    test -r $program
    and read line <$program
    set -l python (string match -rg '^#!(/[^ ]*python[^ /]*)$' -- "$line")
    if test -z "$python"
        set -g __autoloadd_client $program
    else if test -x $python -a -r $package/cli/bare.py
        set -g __autoloadd_client $python -I -S $package/cli/bare.py
    end
end

# Whether there may be a daemon to ask. The path is that of docs/protocol.md.
function __autoloadd_is_there
    set -q __autoloadd_client[1]; and test -x $__autoloadd_client[1]
    or return
    string match -qir '^\s*(0|false|no)\s*$' -- "$AUTOLOADD_CACHE" "$ZSHRS_CACHE"
    and return 1
    set -l place $AUTOLOADD_SOCKET
    if test -z "$place"
        for base in /run/user/$EUID $XDG_RUNTIME_DIR
            if string match -q '/*' -- $base; and test -d $base -a ! -L $base -a -O $base
                set place $base/autoloadd/socket
                break
            end
        end
    end
    if test -z "$place"
        set place $HOME/.cache/autoloadd/run/socket
        string match -q '/*' -- "$XDG_CACHE_HOME"
        and set place $XDG_CACHE_HOME/autoloadd/run/socket
    end
    test -S "$place"
end

# Print what TOOL ARGS... prints. $status stays as it is: text that is sourced begins with it.
function __autoloadd_output
    set -l before $status
    set -l options
    while string match -qr -- '^--(max-age|env)(=|$)' "$argv[1]"
        if string match -q -- '*=*' $argv[1]
            set -a options $argv[1]
        else
            set -a options $argv[1]="$argv[2]"
            set -e argv[1]
        end
        set -e argv[1]
    end
    set -l bad (string match -vr -- '^--(max-age=[0-9]+[smhd]?|env=[A-Za-z_][A-Za-z0-9_]*)$' $options)
    test "$argv[1]" = --; and set -e argv[1]
    if set -q bad[1]; or test -z "$argv[1]"; or string match -q -- '-*' $argv[1]
        set -l usage 'usage: autoloadd-eval [--max-age AGE] [--env NAME]... TOOL ARGS...' '' \
            'Does what `TOOL ARGS... | source` does, with the output of TOOL from the cache.' \
            '  --max-age AGE   run TOOL again after this time: 90 or 90s, 15m, 12h, 7d' \
            '  --env NAME      run TOOL again when this variable changed, too'
        if contains -- "$argv[1]" -h --help
            echo printf "'%s\n'" (string escape -- $usage)
        else
            string match -q -- '-*' "$argv[1]"; and set -a bad $argv[1]
            printf '%s\n' "autoloadd-eval: bad option: "$bad[1] $usage >&2
            echo 'return 2'
        end
    else if not functions -q -- $argv[1]; and not builtin -q -- $argv[1]; and __autoloadd_is_there
        $__autoloadd_client cached --shell fish/$FISH_VERSION $options -- $argv
    else
        $argv
    end
    return $before
end

# It has no scope of its own: what the text sets without one is set where the caller stands.
function autoloadd-eval --no-scope-shadowing --description 'Source what a tool prints, from the cache'
    __autoloadd_output $argv | source
end

# ---- completion

function autoloadd-complete --description "Answer a tool's completion from the cache"
    set -l usage 'usage: autoloadd-complete TOOL...' '' \
        'Serves TAB for TOOL from the cache, where its completion runs TOOL itself. Use it for tools whose' \
        'answer depends only on the tool and on the words of the command line. Those that are known to be so' \
        'need it only where fish completes nothing for them:' \
        '  aws black flask npm pip pip3 uvicorn'
    if contains -- "$argv[1]" -h --help
        printf '%s\n' $usage
        return 0
    else if test -z "$argv[1]"; or string match -q -- '-*' $argv[1]
        string match -q -- '-*' "$argv[1]"; and echo "autoloadd-complete: bad option: $argv[1]" >&2
        printf '%s\n' $usage >&2
        return 2
    end
    set -l failed 0
    for tool in $argv
        if not __autoloadd_wrap $tool
            __autoloadd_register $tool
            and __autoloadd_wrap $tool
            or begin
                echo "autoloadd-complete: fish completes nothing for $tool by running it: load that first" >&2
                set failed 1
            end
        end
    end
    return $failed
end

# Register the completion that TOOL brings along.
function __autoloadd_register --argument-names tool
    switch $tool
        case aws
            complete -c aws -f -a '(__autoloadd_aws)'
        case black flask uvicorn
            __autoloadd_output env _(string upper $tool)_COMPLETE=fish_source $tool | source
        case pip pip3
            __autoloadd_output $tool completion --fish | source
        case '*'
            __autoloadd_read_completion $tool
    end
end

# Read what fish has for a tool in a file: the first that is not ours.
function __autoloadd_read_completion --argument-names tool
    for directory in $fish_complete_path
        if not string match -q '*/autoloadd_client/shells/fish-completions' -- $directory
            and test -r $directory/$tool.fish
            source $directory/$tool.fish
            return 0
        end
    end
    return 1
end

# Have the functions that complete a tool ask us, where they would run it.
function __autoloadd_wrap --argument-names tool
    set -l click _(string replace -ra '\W' '' -- (string replace -a -- - _ $tool))_completion
    switch $tool
        case aws
            complete -c aws | string match -q '*__autoloadd_aws*'
        case npm
            __autoloadd_rewrite __fish_complete_npm 'command npm completion' '__autoloadd_npm completion'
        case pip pip3
            __autoloadd_rewrite __fish_complete_pip '(eval $COMP_WORDS[1])' '(__autoloadd_pip $COMP_WORDS[1])'
        case '*'
            __autoloadd_rewrite $click '(env _' '(__autoloadd_env _'
    end
end

function __autoloadd_rewrite --argument-names name old new
    functions -q -- $name
    or return
    set -l text (functions -- $name)
    string match -q -- "*$new*" $text
    and return
    string match -q -- "*$old*" $text
    or return
    string replace -- $old $new $text | source
end

# For a file of fish-completions: what fish would have read in its place, and then ours.
function __autoloadd_load --argument-names tool
    __autoloadd_read_completion $tool
    __autoloadd_wrap $tool
end

# __autoloadd_ask TOOL STATUS WORDS...: what the words print, which begin with env and run TOOL.
function __autoloadd_ask --argument-names tool status_of_success
    set -l words $argv[3..]
    # A Python program that gets more packages does more.
    set -l options --env PYTHONPATH --packages python
    switch (path basename -- $tool)
        case 'aws*'
            set -l config ~/.aws/config
            set -q AWS_CONFIG_FILE; and set config $AWS_CONFIG_FILE
            set -a options --env AWS_DATA_PATH --file ~/.aws/cli/alias --file $config --file ~/.aws/models
        case flask
            # It loads the application that it finds here. What that imports is nobody's to know.
            set -a options --max-age 10m
            set words env PWD=$PWD $words[2..]
            for file in app.py wsgi.py .env .flaskenv
                set -a options --file $file
            end
    end
    $__autoloadd_client cached --kind complete --shell fish/$FISH_VERSION \
        --status $status_of_success $options -- $words
end

# env _FLASK_COMPLETE=fish_complete COMP_WORDS=... COMP_CWORD=... flask
function __autoloadd_env
    set -l tool $argv[-1]
    if __autoloadd_is_there; and begin
            test (path basename -- $tool) != flask; or __autoloadd_is_flask_here
        end
        __autoloadd_ask $tool 0 env $argv
    else
        env $argv
    end
end

function __autoloadd_pip --argument-names tool
    # Else: packages that are installed, and files.
    if __autoloadd_is_there; and string match -qr '^pip[0-9.]*$' -- $tool
        and begin
            test $COMP_CWORD -eq 1; or string match -q -- '-*' (commandline -t)
        end
        __autoloadd_ask $tool 1 env COMP_WORDS="$COMP_WORDS" COMP_CWORD=$COMP_CWORD \
            PIP_AUTO_COMPLETE=1 $tool
    else
        eval $tool
    end
end

function __autoloadd_npm
    # Else: scripts of package.json, packages, configuration.
    if __autoloadd_is_there; and test "$COMP_CWORD" = 1
        __autoloadd_ask npm 0 env COMP_LINE="$COMP_LINE" COMP_CWORD=$COMP_CWORD \
            COMP_POINT="$COMP_POINT" npm $argv
    else
        command npm $argv
    end
end

function __autoloadd_aws
    set -l line (commandline -pc)
    set -l words (string split -n ' ' -- $line)
    # Else: what is there in the account.
    if __autoloadd_is_there
        and begin
            string match -q -- '-*' (commandline -t); or not string match -q -- '-*' $words[2..]
        end
        __autoloadd_ask aws_completer 0 env COMP_LINE=$line COMP_POINT=(string length -- $line) aws_completer
    else
        env COMP_LINE=$line COMP_POINT=(string length -- $line) aws_completer
    end | string trim -r
end

# Whether what flask completes is decided by what lies in this directory.
function __autoloadd_is_flask_here
    test -z "$FLASK_APP"
    or return
    string match -qr -- ' (-A|-e|--app|--env)' (commandline -cp)
    and return 1
    set -l directory $PWD
    while string match -q '*/*' -- $directory
        set directory (string replace -r '/[^/]*$' '' -- $directory)
        test -e $directory/.env -o -e $directory/.flaskenv
        and return 1
    end
    return 0
end

begin
    set -l ours (path resolve -- (status dirname))
    __autoloadd_find_client (path dirname -- $ours)
    if status is-interactive; and not contains -- $ours/fish-completions $fish_complete_path
        set -g fish_complete_path $ours/fish-completions $fish_complete_path
    end
end
