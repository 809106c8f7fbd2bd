// A C face for simdjson's DOM, as far as Swift needs it. Elements point into the parser's document and
// live until the parser's next parse.
#ifndef MUSTER_CSIMDJSON_H
#define MUSTER_CSIMDJSON_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
typedef struct sj_parser sj_parser;
typedef struct { uint64_t opaque[2]; } sj_element;
typedef struct { uint64_t opaque[4]; } sj_cursor;
enum { SJ_NULL, SJ_BOOL, SJ_INT, SJ_UINT, SJ_DOUBLE, SJ_STRING, SJ_ARRAY, SJ_OBJECT };

/// OTLP's JSON has three levels for each of a value's own, and protobuf's parsers take a hundred of theirs.
enum { SJ_DEPTH = 256 };

sj_parser *sj_new(void);
void sj_free(sj_parser *parser);
/// 0, or simdjson's error code (see sj_message). Documents nest at most SJ_DEPTH deep.
int sj_parse(sj_parser *parser, const void *bytes, size_t count, sj_element *root);
const char *sj_message(int error);
int sj_kind(const sj_element *element);
bool sj_bool(const sj_element *element);
int64_t sj_int(const sj_element *element);
uint64_t sj_uint(const sj_element *element);
double sj_double(const sj_element *element);
const char *sj_string(const sj_element *element, size_t *count);
size_t sj_count(const sj_element *container);
/// Iterates an array or an object; for an object `key` is set as well.
sj_cursor sj_begin(const sj_element *container);
bool sj_next(const sj_element *container, sj_cursor *cursor, const char **key, size_t *key_count, sj_element *value);
/// Whether the bytes are UTF-8, by simdjson's own check.
bool sj_is_utf8(const void *bytes, size_t count);
bool sj_find(const sj_element *object, const char *key, size_t count, sj_element *value);
#ifdef __cplusplus
}
#endif
#endif
