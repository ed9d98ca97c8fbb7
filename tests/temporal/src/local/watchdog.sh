# Runs "$@", a server, and sees to it that the server ends when its owner does.
#
# Standard input is a pipe that only the owner holds open. Its end means that the owner is gone or
# wants the server stopped; a line in it, that the server is to be killed as by a crash. This shell
# leads a process group of its own, so that Ctrl-C reaches the owner only, and so that signals sent
# to group 0 also reach whatever a wrapper script around the server has started.

trap : TERM # a handler, unlike an ignored signal, is not inherited by the server
exec 3<&0   # a background process gets no standard input

"$@" </dev/null 3<&- &
server=$!

(
    trap : TERM
    if ! read -r _ <&3; then
        kill -s TERM 0
        sleep 10
    fi
    kill -s KILL "$server"
) &

# More than once, because the TERM above interrupts it.
while wait "$server"; status=$?; kill -0 "$server" 2>/dev/null; do :; done
echo "the server ended with status $status" >&2
kill -s KILL 0 # whatever is left of the group, this shell included
