#include "CPGQuery.h"

#include <pthread.h>
#include <string.h>

struct job {
    const char *text;
    PgQueryParseResult result;
};

static void *run(void *argument) {
    struct job *job = argument;
    job->result = pg_query_parse(job->text);
    return NULL;
}

PgQueryParseResult muster_pg_query_parse(const char *text, size_t count) {
    if (count <= 2048) return pg_query_parse(text);
    struct job job;
    memset(&job, 0, sizeof job);
    job.text = text;
    pthread_attr_t attributes;
    pthread_t thread;
    if (pthread_attr_init(&attributes) != 0) return job.result;
    if (pthread_attr_setstacksize(&attributes, (size_t)64 << 20) == 0 && pthread_create(&thread, &attributes, run, &job) == 0)
        pthread_join(thread, NULL);
    pthread_attr_destroy(&attributes);
    return job.result;
}
