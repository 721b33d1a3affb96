#!/bin/sh
# Remove from a folder of installed packages what no program reads at run time, and compile the rest.
set -eu
cd "$1"

# Symbol tables: nine tenths of uvloop. What lies in NAME.libs was relinked by auditwheel; strip may break it.
find . -name '*.so*' ! -path './*.libs/*' -exec strip --strip-unneeded {} +
find . -depth -type d -name tests -exec rm -r {} +
find . -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.px[di]' -o -name '*.[cha]' -o -name '*.hpp' \) -delete
rm -rf bin numpy/f2py numpy/_core/_simd.* numpy/_core/*_tests.*

# Nothing can be cached on a read-only file system: without byte code every start would compile.
[ "${BYTE_CODE:-yes}" = no ] || python -m compileall -q --invalidation-mode unchecked-hash .
