import Glibc

exit(runMuster(Array(CommandLine.arguments.dropFirst())))
