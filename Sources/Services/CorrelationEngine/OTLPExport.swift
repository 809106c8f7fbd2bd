import Basics
import Compression
import HTTP
import JSONCoding
import OpenTelemetry
import ProtobufCoding

/// `POST /v1/logs` and `/v1/traces`, as the OTLP specification has them: protobuf or JSON, plain or gzip; 200 with a partial success
/// where records were rejected; failures as `google.rpc.Status` in the request's own encoding; 503 with Retry-After where sending again
/// helps.
extension Engine {
    /// Of a body when it is unpacked.
    static let unpackedLimit = 16 << 20

    private enum Encoding: String {
        case protobuf, json
        var contentType: String { self == .json ? "application/json" : "application/x-protobuf" }
    }

    private struct Refusal: Error {
        let status: Int
        /// gRPC's code.
        let code: Int
        let message: String
        var retryAfter: Int?
    }

    func export(_ request: HTTPRequest, _ signal: OTLP.Signal) async -> HTTPResponse {
        let name = "otlp_\(signal.rawValue)"
        var encoding = Encoding.protobuf
        do throws(Refusal) {
            encoding = try Engine.encoding(request)
            let outcome = try read(request, signal, encoding)
            let stored: [IngestOutcome]
            do throws(APIError) { stored = try await take(outcome.delivery) } catch {
                throw Refusal(status: error.status, code: 14, message: error.message, retryAfter: error.retryAfter)
            }
            var problems = outcome.problems
            var rejected = outcome.delivery.rejected
            for (group, result) in zip(outcome.delivery.groups, stored) where result.refused > 0 {
                rejected += result.refused
                if problems.count < OTLPIngest.told { problems.append(Engine.full(group.key, result.refused)) }
            }
            requests(name, encoding.rawValue, rejected == 0 ? "accepted" : "partial")
            let body = OTLP.response(rejected: rejected, message: problems.joined(separator: "; "), signal, json: encoding == .json)
            return HTTPResponse(headers: [("Content-Type", encoding.contentType)], body: .bytes(body))
        } catch {
            requests(name, encoding.rawValue, error.status == 503 ? "unavailable" : "refused")
            var response = HTTPResponse(
                status: error.status, headers: [("Content-Type", encoding.contentType)],
                body: .bytes(OTLP.status(code: error.code, message: error.message, json: encoding == .json)))
            if let wait = error.retryAfter { response.headers.append(("Retry-After", String(wait))) }
            return response
        }
    }

    private static func encoding(_ request: HTTPRequest) throws(Refusal) -> Encoding {
        let type = request.header("content-type")?.split(separator: ";").first.map { $0.filter { $0 != " " }.lowercased() } ?? ""
        switch type {
        case "application/x-protobuf": return .protobuf
        case "application/json": return .json
        default:
            throw Refusal(
                status: 415, code: 3, message: "Content-Type must be application/x-protobuf or application/json, not '\(type.prefix(60))'")
        }
    }

    private func read(_ request: HTTPRequest, _ signal: OTLP.Signal, _ encoding: Encoding) throws(Refusal) -> OTLPIngest.Outcome {
        var body = request.body
        switch request.header("content-encoding")?.lowercased() {
        case nil, "", "identity"?: break
        case "gzip"?:
            do throws(Gzip.Failure) { body = try Gzip.unpack(body, limit: Engine.unpackedLimit) } catch {
                if case .tooLarge = error { throw Refusal(status: 413, code: 8, message: error.description) }
                throw Refusal(status: 400, code: 3, message: error.description)
            }
        case let other?: throw Refusal(status: 415, code: 3, message: "Content-Encoding must be gzip or none, not '\(other.prefix(60))'")
        }
        do throws(ProtobufFailure) {
            if encoding == .json { body = try OTLP.protobuf(body, signal, document.value) }
            return try Engine.sort(body, signal, otlp)
        } catch {
            throw Refusal(status: 400, code: 3, message: "the body is no export request for \(signal.rawValue): \(error.description)")
        }
    }

    private static func sort(_ body: [UInt8], _ signal: OTLP.Signal, _ ingest: OTLPIngest) throws(ProtobufFailure) -> OTLPIngest.Outcome {
        let result: Result<OTLPIngest.Outcome, ProtobufFailure> = body.withUnsafeBytes { bytes in
            do throws(ProtobufFailure) { return .success(try ingest.read(bytes, signal, now: .now)) } catch { return .failure(error) }
        }
        return try result.get()
    }
}
