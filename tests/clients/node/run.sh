#!/usr/bin/env bash
# Runs the suite with both generations of the JavaScript client. Installs them where they are missing; 2.5.0 declares
# Node 22 and works on Node 20 with a warning.
# Usage: POSTRIDER_URL=… POSTRIDER_TOKEN=… run.sh CACHE_FOLDER
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${1:?folder for the packages}
failed=0
for version in 2.5.0 1.99.1; do
  folder="$cache/node-svix-$version"
  if [ ! -f "$folder/node_modules/svix/package.json" ]; then
    echo "# installing the JavaScript client svix $version"
    mkdir -p "$folder" && echo '{"private":true}' >"$folder/package.json" || exit 1
    npm install --prefix "$folder" --no-audit --no-fund --loglevel=error "svix@$version" "standardwebhooks@1.1.1" || exit 1
  fi
  SVIX_MODULE="$folder" SVIX_VERSION="$version" node "$here/suite.mjs" || failed=1
done
exit $failed
