#!/bin/bash
# runc for a machine that cannot do all that CRI-O asks of it: drops from the OCI spec the fields that @DROP@ names
# (`cluster up` writes them here), then runs the real runc.
bundle= previous=
for argument in "$@"; do
  case $previous in --bundle | -b) bundle=$argument ;; esac
  previous=$argument
done
if [ -f "$bundle/config.json" ]; then
  spec=$(jq 'del(@DROP@)' "$bundle/config.json") && printf '%s\n' "$spec" >"$bundle/config.json"
fi
exec /usr/sbin/runc "$@"
