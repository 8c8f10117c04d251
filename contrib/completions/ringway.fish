# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_ringway_global_optspecs
    string join \n h/help V/version
end

function __fish_ringway_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_ringway_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_ringway_using_subcommand
    set -l cmd (__fish_ringway_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c ringway -n "__fish_ringway_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ringway -n "__fish_ringway_needs_command" -s V -l version -d 'Print version'
complete -c ringway -n "__fish_ringway_needs_command" -f -a "run" -d 'Run the proxy until SIGTERM or SIGINT'
complete -c ringway -n "__fish_ringway_needs_command" -f -a "check" -d 'Say everything that is wrong or unsafe in a configuration and the files it names'
complete -c ringway -n "__fish_ringway_needs_command" -f -a "explain" -d 'Show every effective value and where it comes from'
complete -c ringway -n "__fish_ringway_needs_command" -f -a "drain" -d 'Let a running proxy end: no new connections, and drain_timeout for those that live'
complete -c ringway -n "__fish_ringway_needs_command" -f -a "reload" -d 'Let a running proxy read its configuration anew; connections go on'
complete -c ringway -n "__fish_ringway_needs_command" -f -a "diff" -d 'Say what a reload would change, and what needs a restart'
complete -c ringway -n "__fish_ringway_needs_command" -f -a "demo" -d 'Show the proxy at work on loopback with a throw-away PKI: TLS in, mutual TLS out'
complete -c ringway -n "__fish_ringway_needs_command" -f -a "status" -d 'Show how a running proxy is: listeners, upstreams, servers, cores'
complete -c ringway -n "__fish_ringway_needs_command" -f -a "top" -d 'Watch a running proxy: handshakes, throughput, cores, servers'
complete -c ringway -n "__fish_ringway_needs_command" -f -a "connections" -d 'List connections of a running proxy, the oldest first'
complete -c ringway -n "__fish_ringway_needs_command" -f -a "close" -d 'Close connections of a running proxy: each that fits all that is given'
complete -c ringway -n "__fish_ringway_needs_command" -f -a "server" -d 'Hold a server of a running proxy, or let it go'
complete -c ringway -n "__fish_ringway_needs_command" -f -a "plan" -d 'Show every value that a running proxy works with, and where it comes from'
complete -c ringway -n "__fish_ringway_needs_command" -f -a "log-level" -d 'Show or change the level of what a running proxy says on stderr'
complete -c ringway -n "__fish_ringway_needs_command" -f -a "completions" -d 'Print the completions for a shell'
complete -c ringway -n "__fish_ringway_needs_command" -f -a "man" -d 'Print a man page'
complete -c ringway -n "__fish_ringway_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ringway -n "__fish_ringway_using_subcommand run" -l allow-epoll -d 'Run on epoll where io_uring is forbidden, instead of refusing to start'
complete -c ringway -n "__fish_ringway_using_subcommand run" -l take-over -d 'Take the listening sockets of the process that waits at `takeover` in [runtime], which then drains. Start as usual if there is none'
complete -c ringway -n "__fish_ringway_using_subcommand run" -l background -d 'Return once the proxy serves, in a process of its own in the background, or with its exit code when it does not start. Output goes on to where it went: redirect it where somebody waits for its end'
complete -c ringway -n "__fish_ringway_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ringway -n "__fish_ringway_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ringway -n "__fish_ringway_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ringway -n "__fish_ringway_using_subcommand drain" -l socket -d 'The unix socket of the process\'s [admin] table' -r -F
complete -c ringway -n "__fish_ringway_using_subcommand drain" -s h -l help -d 'Print help'
complete -c ringway -n "__fish_ringway_using_subcommand reload" -l socket -d 'The unix socket of the process\'s [admin] table' -r -F
complete -c ringway -n "__fish_ringway_using_subcommand reload" -l pid -d 'Send SIGHUP to this process instead: what comes of it stands in its log' -r
complete -c ringway -n "__fish_ringway_using_subcommand reload" -s h -l help -d 'Print help'
complete -c ringway -n "__fish_ringway_using_subcommand diff" -l socket -d 'The unix socket of the process\'s [admin] table' -r -F
complete -c ringway -n "__fish_ringway_using_subcommand diff" -s h -l help -d 'Print help'
complete -c ringway -n "__fish_ringway_using_subcommand demo" -l once -d 'End after the show instead of staying up until Ctrl-C'
complete -c ringway -n "__fish_ringway_using_subcommand demo" -l allow-epoll -d 'Run on epoll where io_uring is forbidden, instead of refusing to start'
complete -c ringway -n "__fish_ringway_using_subcommand demo" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ringway -n "__fish_ringway_using_subcommand status" -l socket -d 'The unix socket of the process\'s [admin] table' -r -F
complete -c ringway -n "__fish_ringway_using_subcommand status" -l json -d 'The answer as it comes, for programs'
complete -c ringway -n "__fish_ringway_using_subcommand status" -s h -l help -d 'Print help'
complete -c ringway -n "__fish_ringway_using_subcommand top" -l socket -d 'The unix socket of the process\'s [admin] table' -r -F
complete -c ringway -n "__fish_ringway_using_subcommand top" -l interval -d 'How often to look, and what rates are measured over' -r
complete -c ringway -n "__fish_ringway_using_subcommand top" -l once -d 'Print one interval as lines and end, for scripts'
complete -c ringway -n "__fish_ringway_using_subcommand top" -s h -l help -d 'Print help'
complete -c ringway -n "__fish_ringway_using_subcommand connections" -l socket -d 'The unix socket of the process\'s [admin] table' -r -F
complete -c ringway -n "__fish_ringway_using_subcommand connections" -l id -d 'The connection of this id, as the access log has it' -r
complete -c ringway -n "__fish_ringway_using_subcommand connections" -l listener -d 'Of this listener' -r
complete -c ringway -n "__fish_ringway_using_subcommand connections" -l upstream -d 'To this group of servers' -r
complete -c ringway -n "__fish_ringway_using_subcommand connections" -l server -d 'Served by this server, as the configuration names it, or at this address' -r
complete -c ringway -n "__fish_ringway_using_subcommand connections" -l source -d 'From this address or network' -r
complete -c ringway -n "__fish_ringway_using_subcommand connections" -l min-age -d 'At least so old: "10m", "1d"' -r
complete -c ringway -n "__fish_ringway_using_subcommand connections" -l limit -d 'How many to show' -r
complete -c ringway -n "__fish_ringway_using_subcommand connections" -l json -d 'The answer as it comes, for programs'
complete -c ringway -n "__fish_ringway_using_subcommand connections" -s h -l help -d 'Print help'
complete -c ringway -n "__fish_ringway_using_subcommand close" -l socket -d 'The unix socket of the process\'s [admin] table' -r -F
complete -c ringway -n "__fish_ringway_using_subcommand close" -l id -d 'The connection of this id, as the access log has it' -r
complete -c ringway -n "__fish_ringway_using_subcommand close" -l listener -d 'Of this listener' -r
complete -c ringway -n "__fish_ringway_using_subcommand close" -l upstream -d 'To this group of servers' -r
complete -c ringway -n "__fish_ringway_using_subcommand close" -l server -d 'Served by this server, as the configuration names it, or at this address' -r
complete -c ringway -n "__fish_ringway_using_subcommand close" -l source -d 'From this address or network' -r
complete -c ringway -n "__fish_ringway_using_subcommand close" -l min-age -d 'At least so old: "10m", "1d"' -r
complete -c ringway -n "__fish_ringway_using_subcommand close" -l all -d 'Every connection there is'
complete -c ringway -n "__fish_ringway_using_subcommand close" -s h -l help -d 'Print help'
complete -c ringway -n "__fish_ringway_using_subcommand server" -l socket -d 'The unix socket of the process\'s [admin] table' -r -F
complete -c ringway -n "__fish_ringway_using_subcommand server" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ringway -n "__fish_ringway_using_subcommand plan" -l socket -d 'The unix socket of the process\'s [admin] table' -r -F
complete -c ringway -n "__fish_ringway_using_subcommand plan" -l json -d 'Each value by itself, for programs'
complete -c ringway -n "__fish_ringway_using_subcommand plan" -s h -l help -d 'Print help'
complete -c ringway -n "__fish_ringway_using_subcommand log-level" -l socket -d 'The unix socket of the process\'s [admin] table' -r -F
complete -c ringway -n "__fish_ringway_using_subcommand log-level" -s h -l help -d 'Print help'
complete -c ringway -n "__fish_ringway_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ringway -n "__fish_ringway_using_subcommand man" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ringway -n "__fish_ringway_using_subcommand help; and not __fish_seen_subcommand_from run check explain drain reload diff demo status top connections close server plan log-level completions man help" -f -a "run" -d 'Run the proxy until SIGTERM or SIGINT'
complete -c ringway -n "__fish_ringway_using_subcommand help; and not __fish_seen_subcommand_from run check explain drain reload diff demo status top connections close server plan log-level completions man help" -f -a "check" -d 'Say everything that is wrong or unsafe in a configuration and the files it names'
complete -c ringway -n "__fish_ringway_using_subcommand help; and not __fish_seen_subcommand_from run check explain drain reload diff demo status top connections close server plan log-level completions man help" -f -a "explain" -d 'Show every effective value and where it comes from'
complete -c ringway -n "__fish_ringway_using_subcommand help; and not __fish_seen_subcommand_from run check explain drain reload diff demo status top connections close server plan log-level completions man help" -f -a "drain" -d 'Let a running proxy end: no new connections, and drain_timeout for those that live'
complete -c ringway -n "__fish_ringway_using_subcommand help; and not __fish_seen_subcommand_from run check explain drain reload diff demo status top connections close server plan log-level completions man help" -f -a "reload" -d 'Let a running proxy read its configuration anew; connections go on'
complete -c ringway -n "__fish_ringway_using_subcommand help; and not __fish_seen_subcommand_from run check explain drain reload diff demo status top connections close server plan log-level completions man help" -f -a "diff" -d 'Say what a reload would change, and what needs a restart'
complete -c ringway -n "__fish_ringway_using_subcommand help; and not __fish_seen_subcommand_from run check explain drain reload diff demo status top connections close server plan log-level completions man help" -f -a "demo" -d 'Show the proxy at work on loopback with a throw-away PKI: TLS in, mutual TLS out'
complete -c ringway -n "__fish_ringway_using_subcommand help; and not __fish_seen_subcommand_from run check explain drain reload diff demo status top connections close server plan log-level completions man help" -f -a "status" -d 'Show how a running proxy is: listeners, upstreams, servers, cores'
complete -c ringway -n "__fish_ringway_using_subcommand help; and not __fish_seen_subcommand_from run check explain drain reload diff demo status top connections close server plan log-level completions man help" -f -a "top" -d 'Watch a running proxy: handshakes, throughput, cores, servers'
complete -c ringway -n "__fish_ringway_using_subcommand help; and not __fish_seen_subcommand_from run check explain drain reload diff demo status top connections close server plan log-level completions man help" -f -a "connections" -d 'List connections of a running proxy, the oldest first'
complete -c ringway -n "__fish_ringway_using_subcommand help; and not __fish_seen_subcommand_from run check explain drain reload diff demo status top connections close server plan log-level completions man help" -f -a "close" -d 'Close connections of a running proxy: each that fits all that is given'
complete -c ringway -n "__fish_ringway_using_subcommand help; and not __fish_seen_subcommand_from run check explain drain reload diff demo status top connections close server plan log-level completions man help" -f -a "server" -d 'Hold a server of a running proxy, or let it go'
complete -c ringway -n "__fish_ringway_using_subcommand help; and not __fish_seen_subcommand_from run check explain drain reload diff demo status top connections close server plan log-level completions man help" -f -a "plan" -d 'Show every value that a running proxy works with, and where it comes from'
complete -c ringway -n "__fish_ringway_using_subcommand help; and not __fish_seen_subcommand_from run check explain drain reload diff demo status top connections close server plan log-level completions man help" -f -a "log-level" -d 'Show or change the level of what a running proxy says on stderr'
complete -c ringway -n "__fish_ringway_using_subcommand help; and not __fish_seen_subcommand_from run check explain drain reload diff demo status top connections close server plan log-level completions man help" -f -a "completions" -d 'Print the completions for a shell'
complete -c ringway -n "__fish_ringway_using_subcommand help; and not __fish_seen_subcommand_from run check explain drain reload diff demo status top connections close server plan log-level completions man help" -f -a "man" -d 'Print a man page'
complete -c ringway -n "__fish_ringway_using_subcommand help; and not __fish_seen_subcommand_from run check explain drain reload diff demo status top connections close server plan log-level completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
