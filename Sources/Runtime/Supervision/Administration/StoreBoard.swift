import Observability
import StoreKinds

/// The figures of a stack's stores on the metrics page: whether each node is up, and what it said of itself last. On the control loop.
final class StoreBoard {
    private struct Node {
        let labels: [(String, String)]
        var isUp: Bool
        var figures: [StoreFigure.Name: Int]
    }

    private let metrics: MetricsRegistry
    private var nodes: [String: Node] = [:]

    init(metrics: MetricsRegistry) { self.metrics = metrics }

    /// Of one that is not up there are no figures: the last ones would be taken for present ones. Of one that is, those that were not read
    /// this time stay.
    func note(store: String, kind: String, number: Int, isUp: Bool, _ figures: [StoreFigure]) {
        let id = "\(store)/\(number)"
        var node =
            nodes[id]
            ?? Node(labels: [("store", store), ("kind", kind), ("node", String(number))], isUp: isUp, figures: [:])
        node.isUp = isUp
        if isUp { for figure in figures { node.figures[figure.name] = figure.value } } else { node.figures = [:] }
        nodes[id] = node
        show()
    }

    /// The stack has this store no longer.
    func forget(_ store: String) {
        nodes = nodes.filter { !$0.key.hasPrefix(store + "/") }
        show()
    }

    private func show() {
        let all = nodes.sorted { $0.key < $1.key }.map(\.value)
        metrics.setGauges(
            "muster_store_up", "Whether the node of a store serves (1) or not (0).", all.map { ($0.labels, $0.isUp ? 1 : 0) })
        for name in StoreFigure.Name.allCases {
            metrics.setGauges(
                "muster_store_\(name.rawValue)", name.help,
                all.compactMap { node in node.figures[name].map { (node.labels, $0) } })
        }
    }
}
