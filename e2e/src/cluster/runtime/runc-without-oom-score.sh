#!/bin/bash
# runc for a machine without CAP_SYS_RESOURCE: an OCI spec that lowers oom_score_adj, as CRI-O writes for each sandbox,
# cannot be run there ("failed to update /proc/self/oom_score_adj"). Drops that one field, then runs the real runc.
bundle= previous=
for argument in "$@"; do
  case $previous in --bundle | -b) bundle=$argument ;; esac
  previous=$argument
done
if [ -f "$bundle/config.json" ]; then
  spec=$(jq 'del(.process.oomScoreAdj)' "$bundle/config.json") && printf '%s\n' "$spec" >"$bundle/config.json"
fi
exec /usr/sbin/runc "$@"
