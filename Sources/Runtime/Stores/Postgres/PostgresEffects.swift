import Basics
import EventLoops
import Glibc
import Postgres
import PostgresFailover
import StoreKinds

/// What the machine's decisions do to nodes, each told to it when it is done. Nothing is taken for done that was not seen to be.
extension PostgresKeeper {
    private static let questionTime = Duration.seconds(2)
    private static let stepTime = Duration.seconds(24 * 3600)

    /// Does on the worker's thread what blocks.
    func blocking<Value: Sendable>(_ work: @escaping @Sendable () throws(SystemError) -> Value) async throws(SystemError) -> Value {
        guard let worker else { return try work() }
        let result: Result<Value, SystemError> = await withUnsafeContinuation { continuation in
            worker.execute {
                do throws(SystemError) { continuation.resume(returning: .success(try work())) } catch {
                    continuation.resume(returning: .failure(error))
                }
            }
        }
        return try result.get()
    }

    /// The record is on the disk when it returns; nil: it is. Records are written in the order in which they are wanted, by one thread.
    @discardableResult
    func keep(_ record: StoreRecord) async -> String? {
        let file = store.recordFile
        do throws(SystemError) {
            try await blocking { () throws(SystemError) in try Files.replaceDurably(file, with: Array(record.text.utf8), mode: 0o600) }
            return nil
        } catch {
            host.tell("\(store.name): who leads cannot be written down: \(error)")
            return "\(error)"
        }
    }

    // MARK: from the death of a primary to the next

    func fence(_ attempt: Int, _ number: Int, _ record: StoreRecord) async {
        if starting.contains(number) { return feed(.fenced(attempt: attempt, .failed("it is being started"))) }
        if let why = await keep(record) { return feed(.fenced(attempt: attempt, .failed(why))) }
        let node = node(number)
        do throws(SystemError) {
            let left: String?, clean: WALPosition?
            (left, clean) = try await blocking { () throws(SystemError) in
                // Gone with its folder, it takes no writes and cannot start.
                if Files.isAbsent(node.data) { return (nil, nil) }
                if let left = FolderFence.end(node.data) { return (left, nil) }
                try node.makeStandby()
                let control = ControlFile(in: node.data)
                return (nil, control?.isShutDown == true ? control?.checkpoint : nil)
            }
            feed(.fenced(attempt: attempt, left.map { .failed($0) } ?? .confirmed(clean: clean)))
        } catch { feed(.fenced(attempt: attempt, .failed("\(error)"))) }
    }

    func askPosition(_ attempt: Int, _ number: Int) async {
        let answer = try? await questions(number).look(within: .milliseconds(500), over: spares[number]).get()
        feed(.position(attempt: attempt, node: number, answer?.report))
    }

    func promote(_ attempt: Int, _ number: Int, _ record: StoreRecord) async {
        if let why = await keep(record) { return feed(.promoted(attempt: attempt, .failed(why))) }
        do throws(PostgresError) {
            feed(
                .promoted(
                    attempt: attempt, try await questions(number).promote(within: .seconds(10), over: spares.removeValue(forKey: number))))
        } catch { feed(.promoted(attempt: attempt, .failed("\(error)"))) }
    }

    /// Slots, roles and databases on the primary that has just come to lead. Tried again until it succeeds or another leads.
    func prepare(_ number: Int) async {
        let questions = questions(number), others = store.servers.map(\.number).filter { $0 != number }
        let roles = store.spec.roles.map { (name: $0, password: store.passwords[$0] ?? Secret("")) }
        var told = ""
        while leader == number, !isClosed {
            do throws(PostgresError) {
                try await questions.makeSlots(for: others, within: PostgresKeeper.questionTime)
                try await questions.makeDatabases(
                    store.spec.databases, roles: roles, extensions: store.spec.extensions, within: .seconds(30))
                if leader == number { isPrepared = true }
                return
            } catch {
                let why = "\(store.name)/\(number): its slots, roles and databases cannot be made: \(error)"
                if why != told { host.tell(why) }
                told = why
                if error.code == .server, machine.record.term == 0, !isPrepared { host.failed(why) }
            }
            await loop.sleep(.milliseconds(500))
        }
    }

    func follow(_ attempt: Int, _ number: Int, _ primary: Int) async {
        do throws(SystemError) { try await configure(number, following: primary, isStrict: true) } catch {
            host.tell("\(store.name)/\(number) cannot be told whom to follow: \(error)")
            return feed(.following(attempt: attempt, node: number, nil))
        }
        let questions = questions(number)
        try? await questions.dropSlots(within: PostgresKeeper.questionTime)
        let answer = try? await questions.look(within: PostgresKeeper.questionTime).get()
        feed(.following(attempt: attempt, node: number, answer?.report.position))
    }

    /// Writes what changes while a node runs, and lets its server read it.
    private func configure(_ number: Int, following primary: Int?, isStrict: Bool) async throws(SystemError) {
        let node = node(number), leader = primary.map(self.node), spec = store.spec
        try await blocking { () throws(SystemError) in
            try node.writeDynamic(following: leader, isStrict: isStrict, spec)
            if let server = node.server, kill(server, SIGHUP) != 0, errno != ESRCH { throw SystemError("signal \(server)") }
        }
    }

    func acknowledge(_ number: Int, _ isStrict: Bool) async {
        do throws(SystemError) { try await configure(number, following: nil, isStrict: isStrict) } catch {
            host.tell("\(store.name)/\(number) cannot be told what to acknowledge: \(error)")
        }
    }

    func checkpoint(_ attempt: Int, _ number: Int) async {
        do throws(PostgresError) {
            _ = try await questions(number).ask("CHECKPOINT", within: .seconds(300))
            feed(.checkpointed(attempt: attempt, failure: nil))
        } catch {
            await loop.sleep(.milliseconds(500))
            feed(.checkpointed(attempt: attempt, failure: "\(error)"))
        }
    }

    func stop(_ number: Int) async {
        let node = node(number)
        _ = try? await blocking { () throws(SystemError) in if let server = node.server { kill(server, SIGINT) } }
    }

    func end(_ number: Int) async {
        if starting.contains(number) { return }
        let node = node(number), folder = node.data
        // A standby that stops in order needs no recovery before it is rewound. A second primary is ended at once.
        if machine.report(of: number)?.role == .standby {
            let life = lives[number], deadline = MonotonicTime.now + .seconds(3)
            await stop(number)
            while lives[number] == life, MonotonicTime.now < deadline { await loop.sleep(.milliseconds(10)) }
            if lives[number] != life { return }
        }
        if let left = try? await blocking({ () throws(SystemError) in FolderFence.end(folder) }) {
            host.tell("\(store.name)/\(number): \(left)")
        }
    }

    // MARK: starts

    /// Who leads may be about to be decided: that is waited for. What the node needs before its process can start is done in it.
    func mayStart(_ number: Int) async -> StartVerdict {
        if machine.isRunning(number) { died(number) }
        // A standby waits for its primary without a word, unless that takes long.
        let wait = number == machine.record.primary ? Duration.seconds(3) : .seconds(30)
        let node = node(number), patience = MonotonicTime.now + wait
        while true {
            if isStopping { return .hold("the stack stops") }
            let hasData: Bool
            do throws(SystemError) { hasData = try await blocking { () throws(SystemError) in node.hasData } } catch {
                return .hold("\(error)")
            }
            let plan = machine.plan(for: number, hasData: hasData)
            guard case .hold(let why) = plan else {
                starting.insert(number)
                if let why = await carryOut(plan, node) {
                    starting.remove(number)
                    preparing[number] = nil
                    return .hold(why)
                }
                return .start
            }
            if isStopping || MonotonicTime.now >= patience { return .hold(why) }
            await loop.sleep(.milliseconds(10))
        }
    }

    /// Why it could not be done; nil: the node's process may be started.
    private func carryOut(_ plan: FailoverMachine.StartPlan, _ node: PostgresNode) async -> String? {
        do throws(SystemError) {
            if let left = try await blocking({ () throws(SystemError) in FolderFence.end(node.data) }) { return left }
            switch plan {
            case .hold(let why): return why
            case .initialise: return try await initialise(node)
            case .asPrimary(let record):
                if let why = await keep(record) { return why }
                let spec = store.spec
                try await blocking { () throws(SystemError) in
                    try node.makePrimary()
                    try node.writeDynamic(following: nil, isStrict: true, spec)
                }
                return nil
            case .asStandby(let primary):
                try await becomeStandby(node, of: primary)
                return nil
            case .rewind(let primary, let term): return try await rewind(node, to: self.node(primary), term)
            case .clone(let primary, let term): return try await clone(node, of: self.node(primary), term)
            }
        } catch { return "\(error)" }
    }

    private func becomeStandby(_ node: PostgresNode, of primary: Int) async throws(SystemError) {
        let leader = primary == node.number ? nil : self.node(primary), spec = store.spec
        try await blocking { () throws(SystemError) in
            try node.makeStandby()
            try node.writeDynamic(following: leader, isStrict: true, spec)
        }
    }

    private func run(_ node: PostgresNode, _ program: String, _ arguments: [String]) async -> StepEnding {
        await host.run(
            NodeStep(
                store: store.name, number: node.number, program: node.programs.path(program), arguments: arguments, folder: node.folder,
                user: node.owner.user, environment: [("LC_ALL", "C.UTF-8"), ("PGCONNECT_TIMEOUT", "5")], output: node.stepLog,
                limit: PostgresKeeper.stepTime))
    }

    /// What a step said last, for a message.
    private static func words(_ node: PostgresNode, _ why: String) -> String {
        let lines = Files.lastLines(node.stepLog, 3).joined(separator: "; ")
        return lines.isEmpty ? why : "\(why): \(lines.prefix(600))"
    }

    private func initialise(_ node: PostgresNode) async throws(SystemError) -> String? {
        try await blocking { () throws(SystemError) in Files.remove(node.fresh) }
        let ending = await run(
            node, "initdb",
            [
                "-D", node.fresh, "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--data-checksums", "--auth=scram-sha-256",
                "--auth-local=peer",
            ])
        if case .failed(let why) = ending { return "initdb failed: \(PostgresKeeper.words(node, why))" }
        let spec = store.spec
        if let why = await keep(machine.record) { return why }
        try await blocking { () throws(SystemError) in
            try node.takeFresh()
            try node.writeDynamic(following: nil, isStrict: true, spec)
        }
        return nil
    }

    private func rewind(_ node: PostgresNode, to primary: PostgresNode, _ term: Int) async throws(SystemError) -> String? {
        preparing[node.number] = .rewinding
        let control = try await blocking { () throws(SystemError) in ControlFile(in: node.data) }
        // pg_rewind lets a server recover that did not stop in order. What that writes of its own is no matter on a timeline that has ended;
        // on the primary's own it would part the two. There, nothing is to be taken back: the node only starts again.
        if let control, control.isStandbyInterrupted, control.timeline == machine.record.timeline {
            try await becomeStandby(node, of: primary.number)
            feed(.rejoined(node.number, term: term, .rewound))
            return nil
        }
        feed(.counted(node.number, commits: await commits(of: node, beyond: primary)))
        // A server that only recovers, as pg_rewind starts it, refuses to be a standby. Who starts this node is this keeper, and it writes
        // the file anew before each start.
        try await blocking { () throws(SystemError) in try node.makePrimary() }
        let ending = await run(
            node, "pg_rewind",
            // With other settings than its own the server that recovers would note them in its log, and refuse to start with its own.
            ["--target-pgdata", node.data, "--source-server", primary.connection(as: "muster_rewind")]
                + (node.programs.version >= 15 ? ["--config-file", node.folder + "/postgresql.conf"] : []))
        if case .failed(let why) = ending {
            try? await becomeStandby(node, of: primary.number)
            let words = PostgresKeeper.words(node, why)
            feed(.rejoined(node.number, term: term, .failed(words)))
            return "pg_rewind failed: \(words)"
        }
        try await becomeStandby(node, of: primary.number)
        feed(.rejoined(node.number, term: term, .rewound))
        return nil
    }

    private func clone(_ node: PostgresNode, of primary: PostgresNode, _ term: Int) async throws(SystemError) -> String? {
        guard isPrepared, leader == primary.number else { return "it waits for \(store.name)/\(primary.number) to serve" }
        preparing[node.number] = .cloning
        try await blocking { () throws(SystemError) in Files.remove(node.fresh) }
        let ending = await run(
            node, "pg_basebackup",
            [
                "-D", node.fresh, "-d", primary.connection(as: "muster_clone"), "-X", "stream", "-c", "fast", "-S", node.name,
                "--no-password",
            ])
        if case .failed(let why) = ending {
            let words = PostgresKeeper.words(node, why)
            feed(.rejoined(node.number, term: term, .failed(words)))
            return "pg_basebackup failed: \(words)"
        }
        try await blocking { () throws(SystemError) in try node.takeFresh() }
        try await becomeStandby(node, of: primary.number)
        feed(.rejoined(node.number, term: term, .cloned))
        return nil
    }

    // MARK: what was lost

    /// Commits that the log of a node has beyond the point where the primary's went another way; nil: they cannot be counted.
    private func commits(of node: PostgresNode, beyond primary: PostgresNode) async -> Int? {
        guard let control = try? await blocking({ () throws(SystemError) in ControlFile(in: node.data) }),
            let timeline = machine.record.timeline, control.timeline != timeline,
            let history = try? await questions(primary.number).history(of: timeline, within: PostgresKeeper.questionTime),
            let end = history.end(of: control.timeline)
        else { return nil }
        let output = node.folder + "/waldump.log"
        _ = try? await blocking { () throws(SystemError) in Files.remove(output) }
        let ending = await host.run(
            NodeStep(
                store: store.name, number: node.number, program: node.programs.path("pg_waldump"),
                arguments: [
                    "-p", node.data + "/pg_wal", "-t", String(control.timeline), "-s", end.description, "-r", "Transaction",
                    "--stats=record",
                ],
                folder: node.folder, user: node.owner.user, environment: [("LC_ALL", "C.UTF-8")], output: output, limit: .seconds(120)))
        let text = try? await blocking { () throws(SystemError) in String(decoding: try Files.tail(output, limit: 65_536), as: UTF8.self) }
        return PostgresKeeper.commits(in: text ?? "", isDone: ending == .done)
    }

    /// Reads pg_waldump's statistics. It ends without success at the end of a log, which is what is looked for.
    static func commits(in text: String, isDone: Bool) -> Int? {
        if text.contains("could not find a valid record after") { return 0 }
        var count = 0, isSeen = isDone
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard let kind = words.first else { continue }
            if kind == "Total" { isSeen = true }
            if kind == "Transaction/COMMIT" || kind == "Transaction/COMMIT_PREPARED", words.count > 1 {
                count.addClamped(Int(words[1]) ?? 0)
            }
        }
        return isSeen ? count : nil
    }
}
