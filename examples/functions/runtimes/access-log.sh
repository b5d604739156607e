#!/bin/sh
# Runtime `exec`: a command-line program as it is. Sums up a web server's access log (common log format): requests, errors and
# bytes for each path, the most bytes first.
#
#   quickfire invoke access-log --in examples/functions/samples/access.log
exec awk '
  NF < 10 || $9 !~ /^[0-9][0-9][0-9]$/ {
    printf "line %d is not in common log format\n", NR > "/dev/stderr"
    failed = 1
    exit
  }
  { requests[$7]++; bytes[$7] += $10; if ($9 >= 500) errors[$7]++ }
  END {
    if (failed) exit 65
    for (path in requests)
      printf "%s requests=%d errors=%d bytes=%d\n", path, requests[path], errors[path], bytes[path] | "sort -t= -k4 -n -r"
  }'
