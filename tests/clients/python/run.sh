#!/usr/bin/env bash
# Runs the suite with both generations of the Python client. Installs them into virtual environments where they are missing.
# Usage: POSTRIDER_URL=… POSTRIDER_TOKEN=… run.sh CACHE_FOLDER
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${1:?folder for the virtual environments}
failed=0
for version in 2.9.1 1.99.1; do
  venv="$cache/python-svix-$version"
  if ! "$venv/bin/python" -c "import svix, standardwebhooks" 2>/dev/null; then
    echo "# installing the Python client svix $version"
    python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check "svix==$version" "standardwebhooks==1.1.0" || exit 1
  fi
  "$venv/bin/python" "$here/suite.py" || failed=1
done
exit $failed
