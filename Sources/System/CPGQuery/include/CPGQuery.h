#ifndef MUSTER_CPGQUERY_H
#define MUSTER_CPGQUERY_H

#include <pg_query.h>
#include <stddef.h>

/// `pg_query_parse`, whatever the caller's stack has left: the tree of `1+1+1+...` is as deep as the text is long, and libpg_query writes it
/// by recursion (about 130 bytes of stack a level, measured). Above 2,048 bytes a thread of its own with 64 MiB does it, which is enough for
/// ten times the longest text that Muster reads. Neither a tree nor an error: there was no memory for that thread.
///
/// `text` ends with a NUL and has `count` bytes before it. The result is freed by `pg_query_free_parse_result`.
PgQueryParseResult muster_pg_query_parse(const char *text, size_t count);

#endif
