#!/bin/sh
# Becomes the account "work" with the uid that the agent passes (label io.sorna.features: uid-match), so that
# files in the scratch directory belong to the same uid inside and outside, and starts the kernel.
set -eu
uid=${LOCAL_USER_ID:-1000}
getent group work >/dev/null || echo "work:x:$uid:" >>/etc/group
getent passwd work >/dev/null || echo "work:x:$uid:$uid:user:/home/work:/bin/bash" >>/etc/passwd
export HOME=/home/work USER=work
exec setpriv --reuid="$uid" --regid="$uid" --clear-groups -- "$@"
