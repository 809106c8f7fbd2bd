import Basics
import Glibc
import JSONCoding
import TestSupport
import Testing

/// What was decided is told after the supervisor has gone, however it went, and by the one that comes after it.
@Suite(.serialized) struct JournalFileTests {
    private func file(_ stack: SmallStack) throws -> String {
        "stack: s\nservices:\n" + (try stack.service("web", environment: "WHO: w")) + stack.gateway()
    }

    private func decisions(_ stack: SmallStack) -> String { "\(stack.folder)/.muster/s/journal/decisions.jsonl" }

    private func why(_ stack: SmallStack, _ more: String...) async throws -> (status: Int32, output: String) {
        try await run(builtProgram("muster"), ["why"] + more + ["--stack", "s.yaml"], folder: stack.folder)
    }

    @Test func whyAnswersAfterDown() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", try file(stack))
            try await stack.up()
            #expect(try await stack.muster("roll", "web", "s.yaml").status == 0)
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            for words in [["web"], [], ["web", "--since", "10m"], ["--since", "2026-01-01T00:00:00Z"]] {
                let (status, output) = try await run(
                    builtProgram("muster"), ["why"] + words + ["--stack", "s.yaml"], folder: stack.folder)
                #expect(status == 0 && output.contains("web is rolled: every replica is a new one."), "\(words): \(output)")
                #expect(output.contains("note: no supervisor of the stack 's' answers"), "\(output)")
            }
            let json = try await why(stack, "web", "--json")
            let array = try required(json.output.split(separator: "\n").first { $0.hasPrefix("[") }, json.output)
            try JSONDocument().parse(Array(array.utf8)) { root in
                #expect(root.array?.contains { $0["kind"]?.string == "roll" && $0["at"]?.string?.hasSuffix("Z") == true } == true)
            }
            let later = try await why(stack, "web", "--since", "2999-01-01T00:00:00Z")
            #expect(later.status == 2 || later.output.contains("nothing has been decided"), "\(later.output)")
            #expect(try await why(stack, "wbe").output.contains("did you mean 'web'?"))
            #expect(try await why(stack, "--since", "soon").status == 2)
            var info = stat()
            #expect(stat(decisions(stack), &info) == 0 && info.st_mode & 0o777 == 0o600)
            // The next supervisor tells it as its own.
            try await stack.up()
            let after = try await why(stack, "web")
            #expect(after.status == 0 && after.output.contains("web is rolled") && !after.output.contains("note:"), "\(after.output)")
            #expect(try await stack.muster("down", "s.yaml", "--purge").status == 0)
            #expect(!Files.exists(decisions(stack)))
            let gone = try await why(stack)
            #expect(gone.status == 1 && gone.output.contains("not running"), "\(gone.output)")
        }
    }

    /// Nobody starts the supervisor again; the file is cut in the middle of a line, has lines of nobody, and of a later version.
    @Test func whyAnswersAfterAKillAndFromADamagedFile() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", try file(stack))
            try await stack.up()
            #expect(try await stack.muster("roll", "web", "s.yaml").status == 0)
            let told = await eventually { Files.text(decisions(stack))?.contains("web is rolled") == true }
            #expect(told)
            let (supervisor, watcher) = try stack.supervisor(of: try await stack.row("web/2"))
            kill(watcher, SIGKILL)
            kill(supervisor, SIGKILL)
            #expect(await eventually { !isAlive(supervisor) })
            let killed = try await why(stack, "web")
            #expect(killed.status == 0 && killed.output.contains("web is rolled") && !killed.output.contains("damaged"), "\(killed.output)")
            // Cut in its last line: the one before it stays.
            let size = try Files.size(decisions(stack))
            #expect(truncate(decisions(stack), off_t(size - 20)) == 0)
            let cut = try await why(stack, "web")
            #expect(
                cut.status == 0 && cut.output.contains("A roll of web begins") && !cut.output.contains("web is rolled"), "\(cut.output)")
            #expect(!cut.output.contains("damaged"), "\(cut.output)")
            // The next supervisor writes on behind the last whole line.
            try await stack.up()
            #expect(try await stack.muster("roll", "web", "s.yaml").status == 0)
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            let next = try await why(stack, "web")
            #expect(next.output.components(of: "A roll of web begins") == 2 && next.output.components(of: "web is rolled") == 1)
            #expect(!next.output.contains("damaged"), "\(next.output)")
            var text = Files.text(decisions(stack)) ?? ""
            text = "nonsense\n\u{0}{\"v\":1}\n{\"v\":7,\"boot\":\"\",\"mono_ns\":1,\"new\":[]}\n" + text + "{\"v\":1,\"at\":\"2026-\n"
            try Files.replace(decisions(stack), with: Array(text.utf8))
            let odd = try await why(stack, "web")
            #expect(odd.status == 0 && odd.output.contains("web is rolled"), "\(odd.output)")
            #expect(odd.output.contains("3 lines are damaged, 1 line is of another version of Muster"), "\(odd.output)")
            // The supervisor starts on it, too.
            try await stack.up()
            #expect(try await why(stack, "web").output.contains("web is rolled"))
            #expect(try await stack.muster("down", "s.yaml").status == 0)
        }
    }

    @Test func aFollowerHearsOfBothLives() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", try file(stack))
            try await stack.up()
            let follower = try Child(
                builtProgram("muster"), ["why", "--follow", "--stack", "s.yaml"], log: stack.folder + "/followed", folder: stack.folder)
            let result: Result<Void, any Error>
            do {
                #expect(try await stack.muster("roll", "web", "s.yaml").status == 0)
                #expect(await eventually { follower.output.contains("web is rolled") })
                let (supervisor, _) = try stack.supervisor(of: try await stack.rows()[0])
                kill(supervisor, SIGKILL)
                #expect(await eventually(.seconds(20)) { follower.output.contains("The supervisor ended (killed by SIG") })
                #expect(follower.output.components(of: "web is rolled") == 1, "\(follower.output)")
                result = .success(())
            } catch { result = .failure(error) }
            follower.send(SIGTERM)
            _ = await follower.end(within: .seconds(5))
            try result.get()
        }
    }

    /// Where the folder cannot be written, the stack goes on; that is told once, and when it is over what was kept is written.
    @Test func aJournalThatCannotBeWrittenStopsNothing() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", try file(stack))
            try await stack.up()
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            let folder = "\(stack.folder)/.muster/s/journal", log = "\(stack.folder)/.muster/s/logs/supervisor.log"
            Files.remove(folder)
            try Files.replace(folder, with: [])
            try await stack.up()
            for _ in 1...2 { #expect(try await stack.muster("roll", "web", "s.yaml").status == 0) }
            #expect(try await stack.get().text == "w")
            let text = Files.text(log) ?? ""
            #expect(text.components(of: "cannot be written") == 1, "\(text)")
            Files.remove(folder)
            #expect(await eventually(.seconds(20)) { Files.text(log)?.contains("is written again") == true })
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            #expect(try await why(stack, "web").output.components(of: "web is rolled") == 2)
        }
    }

    /// A service that has grown goes on with its size, its window and its recording when the supervisor is killed; a size that somebody
    /// has set stays set; and after `down` everything begins anew.
    @Test func aKilledSupervisorsSizesGoOn() async throws {
        try await withSmallStack { stack in
            let scale =
                "{ metrics: [{ metric: q, average: 10 }], every: 1s, warm-up: 0s, down: { pods: 8, every: 1s, stabilization: 10m } }"
            try stack.put(
                "s.yaml",
                "stack: s\nservices:\n"
                    + (try stack.service(
                        "web", environment: "WHO: 'q 25'", "replicas: 1..3", "resources: { cpu: 100m, memory: 64Mi }", "scale: \(scale)"
                    ).replacing("ready: / }", with: "ready: /, metrics: /metrics }"))
                    + (try stack.service("other", "replicas: 1..4")) + stack.gateway())
            try await stack.up()
            func count(_ service: String) async throws -> Int {
                try await stack.rows().filter { $0.name.hasPrefix(service + "/") && $0.state == "ready" }.count
            }
            let hasGrown = try await eventually(.seconds(30)) { try await count("web") == 3 }
            #expect(hasGrown)
            #expect(try await stack.muster("scale", "other=2", "s.yaml").status == 0)
            let before = try await stack.rows()
            kill(try stack.supervisor(of: before[0]).supervisor, SIGKILL)
            let isBack = try await eventually(.seconds(30)) {
                let rows = try await stack.rows()
                return rows.count == 5 && rows.allSatisfy { $0.state == "ready" }
                    && Set(rows.map(\.pid)).isDisjoint(with: before.map(\.pid))
            }
            let rows = try await stack.rows()
            #expect(isBack, "\(rows)")
            let grown = try await why(stack, "web", "--json")
            #expect(
                grown.output.contains("\"outcome\":\"3\"") && !grown.output.contains("from 1 to 3 replicas: somebody"), "\(grown.output)")
            // The recording has both lives, also when nobody runs it any more.
            let hasBoth = try await eventually {
                let live = try await why(stack, "web", "--csv")
                return live.output.contains(",web,replicas,1") && live.output.contains(",web,replicas,3")
            }
            #expect(hasBoth)
            #expect(try await stack.muster("down", "s.yaml").status == 0)
            let csv = try await why(stack, "web", "--csv")
            let recording = csv.output.split(separator: "\n").filter { !$0.hasPrefix("note:") }.joined(separator: "\n") + "\n"
            #expect(csv.status == 0 && recording.hasPrefix("time,service,metric,value\n") && recording.contains(",web,q,"), "\(csv.output)")
            try stack.put("run.csv", recording)
            let replay = try await stack.muster("replay", "run.csv", "--policy", "s.yaml", "--step", "1s", "--json")
            #expect(replay.status == 0, "\(replay.output)")
            let lines = try await stack.muster("replay", decisions(stack), "--policy", "s.yaml", "--step", "1s", "--json")
            #expect(lines.status == 0, "\(lines.output)")
            try await stack.up()
            #expect(try await count("other") == 1)
        }
    }
}

extension String {
    fileprivate func components(of part: String) -> Int { ranges(of: part).count }
}
