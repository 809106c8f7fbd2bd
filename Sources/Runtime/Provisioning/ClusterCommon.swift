import Redis
import Sharding

extension ClusterSession {
    /// Functions, users and settings of each node that answered, by id.
    func common(_ reading: ClusterReading) async -> [String: NodeCommon] {
        var found: [String: NodeCommon] = [:]
        for report in reading.reports { found[report.id] = await common(of: report.asked) }
        return found
    }

    func common(of address: NodeAddress) async -> NodeCommon {
        var common = NodeCommon()
        let client: NodeClient
        do throws(ProvisioningFailure) { client = try self.client(address) } catch {
            common.unread = ["functions, users and settings": error.message]
            return common
        }
        var settings = RedisCommand("CONFIG GET")
        for name in NodeCommon.settingNames { settings.add(name) }
        let answers = await client.results([RedisCommand("FUNCTION LIST", "WITHCODE"), RedisCommand("ACL LIST"), settings])
        func known(_ index: Int, _ part: String) -> RESPValue? {
            do throws(RedisError) { return try answers[index].get() } catch {
                let failure = ProvisioningFailure(error, node: address)
                if !failure.isUnknownCommand { common.unread[part] = failure.message }
                return nil
            }
        }
        common.libraries = known(0, "functions").map { Restore.libraries($0).mapValues { String(decoding: $0, as: UTF8.self) } }
        func list(_ index: Int, _ part: String) -> [RESPValue]? {
            guard let value = known(index, part) else { return nil }
            if value.array == nil { common.unread[part] = "the answer is no list" }
            return value.array
        }
        common.users = list(1, "users").map(ClusterSession.users)
        common.settings = list(2, "settings").map { pairs in
            let words = pairs.map { $0.string ?? "" }
            return Dictionary(zip(words, words.dropFirst()).enumerated().filter { $0.offset % 2 == 0 }.map(\.element)) { $1 }
        }
        return common
    }

    /// The users of a node but `default`. nil: it is too old to have any, or whoever is logged in may not ask for them, which `tell` hears.
    /// Throws when it does not answer: that one cannot see them does not mean that there are none.
    private func users(of address: NodeAddress, tell: (String) -> Void) async throws(ProvisioningFailure) -> [String: String]? {
        do throws(ProvisioningFailure) {
            guard let lines = try await client(address).ask("ACL LIST").array else {
                throw ProvisioningFailure(.server, "answered to ACL LIST with something else than a list", node: address)
            }
            return ClusterSession.users(lines)
        } catch {
            if error.isUnknownCommand { return nil }
            guard error.isForbidden else { throw error }
            tell("users are not copied: \(error)")
            return nil
        }
    }

    /// Lines of `ACL LIST`: `user alice on #… ~* +@all`. Passwords are hashes in it.
    private static func users(_ lines: [RESPValue]) -> [String: String] {
        var out: [String: String] = [:]
        for line in lines {
            let words = (line.string ?? "").split(separator: " ", maxSplits: 2)
            if words.count == 3, words[0] == "user", words[1] != "default" { out[String(words[1])] = String(words[2]) }
        }
        return out
    }

    /// Gives a node the libraries that it lacks and another one has. One of the same name with other code is refused.
    func copyLibraries(from model: NodeAddress, to address: NodeAddress, tell: (String) -> Void) async throws(ProvisioningFailure) {
        let answer: RESPValue
        do { answer = try await client(model).ask("FUNCTION LIST", "WITHCODE") } catch {
            // Servers before 7.0 have none.
            if error.isUnknownCommand { return }
            throw error
        }
        let ours = Restore.libraries(answer)
        if ours.isEmpty { return }
        let theirs = Restore.libraries(try await client(address).ask("FUNCTION LIST", "WITHCODE"))
        for (name, code) in ours.sorted(by: { $0.key < $1.key }) where theirs[name] != code {
            guard theirs[name] == nil else {
                throw ProvisioningFailure(.refused, "has another library of functions '\(name)' than \(model)", node: address)
            }
            var command = RedisCommand("FUNCTION LOAD")
            command.add(code)
            _ = try await client(address).ask(command)
            tell("\(address) has the library of functions '\(name)'")
        }
    }

    /// Gives a node the users that it lacks and another one has. Passwords go as the hashes that `ACL LIST` tells; where the node keeps
    /// its users in a file, they are written into it.
    func copyUsers(from model: NodeAddress, to address: NodeAddress, tell: (String) -> Void) async throws(ProvisioningFailure) {
        // Who may not ask for users cannot copy them; `status` does not compare them either then.
        guard let ours = try await users(of: model, tell: tell), let theirs = try await users(of: address, tell: tell) else { return }
        var copied = false
        for (name, rules) in ours.sorted(by: { $0.key < $1.key }) where theirs[name] == nil {
            var command = RedisCommand("ACL SETUSER")
            command.add(name)
            for word in rules.split(separator: " ") { command.add(String(word)) }
            _ = try await client(address).ask(command)
            tell("\(address) has the user '\(name)'")
            copied = true
        }
        if !copied { return }
        // Without a file for users this is an error, and they last as long as the process, as those of the model do.
        do { _ = try await client(address).ask("ACL SAVE") } catch {
            guard error.code == .server else { throw error }
            let why = error.message.contains("ACL file") ? "has no file for its users" : "could not write its users down (\(error.message))"
            tell("\(address) \(why): after a restart they are gone, and muster redis fix brings them back")
        }
    }

    /// Whom a new master takes functions and users from: a master that serves.
    func model(_ view: ClusterView, except ids: Set<String>) -> ClusterView.Member? {
        view.masters.first { $0.answers && !$0.slots.isEmpty && !ids.contains($0.id) }
    }
}
