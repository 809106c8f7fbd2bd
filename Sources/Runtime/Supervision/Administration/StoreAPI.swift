import Basics
import EventLoops
import HTTP
import JSONCoding
import StoreKinds

/// What is asked of stores as a whole: how they are, and orders to them.
extension ControlAPI {
    /// `store` narrows it. Stores of which there is nothing to say beyond their nodes are left out.
    static func addStores(to router: inout Router, _ admin: LoopBound<StackAdmin>) {
        router.get("/api/stores") { request, _ in
            let only = try request.query("store").filled("store"), runner = admin.value.runner
            if let only, runner.units.spec(only) == nil { throw unknownStore(only, runner) }
            let views = runner.stack.stores.compactMap { store in
                only == nil || only == store.name
                    ? runner.units.keeper(of: store.name)?.view().map { (store.name, store.kind.rawValue, $0) } : nil
            }
            var json = JSONWriter()
            json.beginArray()
            for (name, kind, view) in views { write(view, of: name, kind, &json) }
            json.endArray()
            return .json(json.bytes)
        }
    }

    /// `store`, `verb`, `node`, `force` and `dry`: what a kind of store knows to do. Answers when it is done, with a sentence.
    static func addOrders(to router: inout Router, _ admin: LoopBound<StackAdmin>) {
        router.post("/api/store") { request, _ in
            _ = try request.query()
            let (store, order) = try request.json { (root) throws(APIError) -> (String, StoreOrder) in
                let body = try JSONFields(root, known: ["store", "verb", "node", "force", "dry"])
                guard let store = try body.string("store") else { throw body.missing("store") }
                guard let verb = try body.string("verb") else { throw body.missing("verb") }
                return (
                    store,
                    StoreOrder(
                        verb: verb, node: try body.integer("node", in: 1...1000), isForced: body.element("force")?.bool ?? false,
                        isDry: body.element("dry")?.bool ?? false)
                )
            }
            guard let keeper = admin.value.runner.units.keeper(of: store) else { throw unknownStore(store, admin.value.runner) }
            do throws(StoreFailure) {
                let done = try await keeper.carryOut(order)
                return .json { $0.member("done", done) }
            } catch { throw APIError(409, "refused", error.description) }
        }
    }

    private static func unknownStore(_ name: String, _ runner: StackRunner) -> APIError {
        let hint = nearestWord(to: name, in: runner.stack.stores.map(\.name)).map { "; did you mean '\($0)'?" } ?? ""
        return APIError(404, "no_such_store", "the stack has no store '\(name)'\(hint)", field: "store")
    }

    private static func write(_ view: StoreView, of name: String, _ kind: String, _ json: inout JSONWriter) {
        json.beginObject()
        json.member("store", name)
        json.member("kind", kind)
        json.member("state", view.state)
        for figure in view.figures { write(figure, &json) }
        json.key("nodes")
        json.beginArray()
        for node in view.nodes {
            json.beginObject()
            json.member("node", node.number)
            json.member("state", node.state)
            if let role = node.role { json.member("role", role) }
            for figure in node.figures { write(figure, &json) }
            json.endObject()
        }
        json.endArray()
        json.endObject()
    }

    private static func write(_ figure: StoreView.Figure, _ json: inout JSONWriter) {
        if let number = Int(figure.value) { return json.member(figure.name, number) }
        if let truth = Bool(figure.value) { return json.member(figure.name, truth) }
        json.member(figure.name, figure.value)
    }
}
