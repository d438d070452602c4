# Made by scripts/manual from the parser of autoloadd.

complete -c autoloadd -f
complete -c autoloadd -s h -l help -d 'show this help message and exit'
complete -c autoloadd -l socket -r -F -d 'Unix socket to serve'
complete -c autoloadd -l cache-dir -x -a '(__fish_complete_directories)' -d 'where the shards are kept'
complete -c autoloadd -l config -r -F -d 'TOML file to read settings from'
complete -c autoloadd -l max-bytes -x -d 'bound of all shards together (default: 512 MiB)'
complete -c autoloadd -l sync-interval -x -d 'what a power loss may take of writes that were not synced (default: 1)'
complete -c autoloadd -l log-level -x -a 'debug info warning error' -d 'debug, info, warning, error'
complete -c autoloadd -l check-config -d 'say where each setting comes from, and exit'
complete -c autoloadd -l version -d 'show the version and exit'
