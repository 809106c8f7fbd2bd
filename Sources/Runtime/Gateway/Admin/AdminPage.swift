/// The admin port's page: plain HTML that reads `/api/state` and `/api/why` every second, and `/api/scaling` where services scale by
/// themselves. The page loads no code from elsewhere, and writes what comes from outside as text, never as markup.
enum AdminPage {
    static let html = """
        <!doctype html>
        <html lang="en"><head><meta charset="utf-8"><title>Muster gateway</title>
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta name="color-scheme" content="light dark">
        <meta http-equiv="Content-Security-Policy"
         content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'">
        <link rel="icon" href="data:,">
        <style>
        \(style)
        \(scalingStyle)
        </style></head><body>
        <a class="skip" href="#decisions">Skip to the decisions</a>
        <header>
        <h1>Muster gateway</h1>
        <p class="muted" id="listen">asking …</p>
        <p id="status" role="status"></p>
        <button type="button" id="pause" aria-pressed="false">Pause</button>
        </header>
        <main>
        <section aria-labelledby="now"><h2 id="now" class="unseen">Now</h2><dl class="tiles" id="tiles"></dl></section>
        <form id="search" class="bar-of-tools">
        <label for="id">Request id</label>
        <input id="id" name="id" type="search" autocomplete="off" spellcheck="false" maxlength="128" placeholder="X-Request-Id of an answer">
        <button>Explain</button>
        </form>
        <section id="found" aria-label="What became of the request" aria-live="polite"></section>
        <div class="bar-of-tools" id="filters" hidden>
        <label for="filter">Replicas</label>
        <input id="filter" type="search" autocomplete="off" spellcheck="false" placeholder="part of a name">
        <label class="check"><input type="checkbox" id="unfit"> only those that are not ready</label>
        </div>
        <div id="routes"></div>
        <section id="scaling" aria-labelledby="scales" hidden><h2 id="scales">Scaling</h2><div id="scaled"></div></section>
        <section aria-labelledby="decisions">
        <div class="head"><h2 id="decisions" tabindex="-1">Decisions</h2>
        <span class="tools"><button type="button" id="all" hidden></button>
        <label for="kind">Show</label>
        <select id="kind"><option value="changes">all but routing</option><option value="">all</option><option>eject</option><option>retry</option>
        <option>breaker</option><option>limit</option><option>failover</option><option>scale</option><option>restart</option><option>roll</option><option>route</option></select>
        </span></div>
        <p class="muted" id="none">None yet.</p><ol id="why"></ol>
        </section>
        </main>
        <footer class="muted">Rates, shares and percentiles are those of the last 10 seconds, curves of the last 2 minutes. Also here:
        <a href="/metrics">/metrics</a> <a href="/api/state">/api/state</a> <a href="/api/why">/api/why</a> <a href="/stats;csv">/stats;csv</a></footer>
        <noscript>This page needs JavaScript; <a href="/api/state">/api/state</a> has the same numbers.</noscript>
        <script>
        \(figures)
        \(scaling)
        \(decisions)
        </script></body></html>
        """
}
