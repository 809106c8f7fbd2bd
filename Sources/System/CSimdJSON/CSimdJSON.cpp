#include "CSimdJSON.h"
#include <cstring>
#include <new>
#include <simdjson.h>

using namespace simdjson;

static_assert(sizeof(dom::element) <= sizeof(sj_element), "an element no longer fits");
static_assert(sizeof(dom::array::iterator) <= sizeof(sj_cursor), "a cursor no longer fits");
static_assert(sizeof(dom::object::iterator) <= sizeof(sj_cursor), "a cursor no longer fits");

struct sj_parser { dom::parser parser; };

static dom::element get(const sj_element *e) { dom::element out; memcpy(&out, e, sizeof out); return out; }
static void put(sj_element *to, const dom::element &e) { memcpy(to, &e, sizeof e); }

sj_parser *sj_new(void) { return new (std::nothrow) sj_parser(); }
void sj_free(sj_parser *parser) { delete parser; }

int sj_parse(sj_parser *parser, const void *bytes, size_t count, sj_element *root) {
    // The depth limit is ours (simdjson's own is 1024).
    if (parser->parser.max_depth() != SJ_DEPTH) {
        auto failed = parser->parser.allocate(4096, SJ_DEPTH);
        if (failed) return failed;
    }
    dom::element element;
    auto error = parser->parser.parse(static_cast<const uint8_t *>(bytes), count, true).get(element);
    if (!error) put(root, element);
    return error;
}
const char *sj_message(int error) { return error_message(static_cast<error_code>(error)); }

int sj_kind(const sj_element *element) {
    switch (get(element).type()) {
    case dom::element_type::ARRAY: return SJ_ARRAY;
    case dom::element_type::OBJECT: return SJ_OBJECT;
    case dom::element_type::INT64: return SJ_INT;
    case dom::element_type::UINT64: return SJ_UINT;
    case dom::element_type::DOUBLE: return SJ_DOUBLE;
    case dom::element_type::STRING: return SJ_STRING;
    case dom::element_type::BOOL: return SJ_BOOL;
    default: return SJ_NULL;
    }
}
bool sj_bool(const sj_element *e) { return get(e).get_bool().value_unsafe(); }
int64_t sj_int(const sj_element *e) { return get(e).get_int64().value_unsafe(); }
uint64_t sj_uint(const sj_element *e) { return get(e).get_uint64().value_unsafe(); }
double sj_double(const sj_element *e) { return get(e).get_double().value_unsafe(); }
const char *sj_string(const sj_element *e, size_t *count) {
    auto text = get(e).get_string().value_unsafe();
    *count = text.size();
    return text.data();
}
size_t sj_count(const sj_element *container) {
    auto e = get(container);
    return e.is_array() ? e.get_array().value_unsafe().size() : e.get_object().value_unsafe().size();
}
sj_cursor sj_begin(const sj_element *container) {
    sj_cursor cursor = {};
    auto e = get(container);
    if (e.is_array()) { auto it = e.get_array().value_unsafe().begin(); memcpy(&cursor, &it, sizeof it); }
    else { auto it = e.get_object().value_unsafe().begin(); memcpy(&cursor, &it, sizeof it); }
    return cursor;
}
bool sj_next(const sj_element *container, sj_cursor *cursor, const char **key, size_t *key_count, sj_element *value) {
    auto e = get(container);
    if (e.is_array()) {
        auto array = e.get_array().value_unsafe();
        auto it = array.begin();
        memcpy(&it, cursor, sizeof it);
        if (!(it != array.end())) return false;
        put(value, *it);
        ++it;
        memcpy(cursor, &it, sizeof it);
        return true;
    }
    auto object = e.get_object().value_unsafe();
    auto it = object.begin();
    memcpy(&it, cursor, sizeof it);
    if (!(it != object.end())) return false;
    *key = it.key().data();
    *key_count = it.key().size();
    put(value, it.value());
    ++it;
    memcpy(cursor, &it, sizeof it);
    return true;
}
bool sj_find(const sj_element *object, const char *key, size_t count, sj_element *value) {
    dom::element found;
    if (get(object).get_object().value_unsafe().at_key(std::string_view(key, count)).get(found)) return false;
    put(value, found);
    return true;
}

bool sj_is_utf8(const void *bytes, size_t count) { return simdjson::validate_utf8((const char *)bytes, count); }
