#!/bin/sh
# Remove from a folder of installed packages what no program reads at run time, and compile the rest.
set -eu
cd "$1"

# Symbol tables: nine tenths of uvloop. What lies in NAME.libs was relinked by auditwheel; strip may break it.
find . -name '*.so*' ! -path './*.libs/*' -exec strip --strip-unneeded {} +
find . -depth -type d -name tests -exec rm -r {} +
find . -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.px[di]' -o -name '*.[cha]' -o -name '*.hpp' \) -delete
rm -rf bin numpy/f2py numpy/_core/_simd.* numpy/_core/*_tests.* \
    sqlalchemy/testing sqlalchemy/dialects/mssql sqlalchemy/dialects/mysql sqlalchemy/dialects/oracle \
    faststream/confluent faststream/kafka faststream/mqtt

# Nothing can be cached on a read-only file system: without byte code every start would compile.
# NO_BYTE_CODE is a pattern of what a start does not read, or what a budget has no room for.
python -m compileall -q -x "${NO_BYTE_CODE:-^$}" --invalidation-mode unchecked-hash .
