#!/bin/sh
# install.sh ENVIRONMENT REQUIREMENTS.txt | install.sh ENVIRONMENT --project FOLDER
# Makes the environment if it is missing and installs into it, byte-compiled, by uv, which is several times faster than pip;
# where the site's index has no uv, by pip. Neither leaves a cache.
set -eu
target=$1
shift
if [ -s /build/site-ca.crt ]; then
    export SSL_CERT_FILE=/build/site-ca.crt PIP_CERT=/build/site-ca.crt
fi
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
export UV_LINK_MODE=copy UV_CACHE_DIR=/tmp/uv UV_HTTP_TIMEOUT=120
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST; do
    eval "value=\${$name:-}"
    if [ -z "$value" ]; then unset "$name"; fi
done
if [ -n "${PIP_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX="$PIP_INDEX_URL"; fi
if [ -n "${PIP_EXTRA_INDEX_URL:-}" ]; then export UV_INDEX="$PIP_EXTRA_INDEX_URL" UV_INDEX_STRATEGY=unsafe-best-match; fi
if [ -n "${PIP_TRUSTED_HOST:-}" ]; then export UV_INSECURE_HOST="$PIP_TRUSTED_HOST"; fi

if [ ! -x /build/tools/bin/python ]; then
    python3 -m venv /build/tools
    /build/tools/bin/pip install --quiet uv || echo "uv could not be had; pip does it, more slowly"
fi
if [ ! -x "$target/bin/python" ]; then
    python3 -m venv --without-pip "$target"
fi
if [ "$1" = "--project" ]; then
    set -- --no-deps "$2"
else
    # The file is complete; what it leaves out is left out on purpose (requirements/overrides.txt).
    set -- --no-deps --requirement "$1"
fi
if [ -x /build/tools/bin/uv ]; then
    /build/tools/bin/uv pip install --python "$target/bin/python" --compile-bytecode "$@"
else
    /build/tools/bin/pip --python "$target/bin/python" install --compile "$@"
fi
