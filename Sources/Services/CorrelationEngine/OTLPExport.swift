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

    private enum Encoding: String, Sendable {
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
            let outcome = try await read(request, signal, encoding)
            let stored: [IngestOutcome]
            do throws(APIError) { stored = try await take(outcome.delivery) } catch {
                throw Refusal(
                    status: error.status, code: error.status == 413 ? 8 : 14, message: error.message, retryAfter: error.retryAfter)
            }
            var problems = outcome.problems
            var rejected = outcome.delivery.rejected
            for (key, refused) in Engine.refusals(outcome.delivery, stored) {
                rejected.addClamped(refused)
                if problems.count < 2 * OTLPIngest.told { problems.append(Engine.full(key, refused)) }
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
        let given: String?
        do throws(APIError) { given = try request.single("content-type") } catch {
            throw Refusal(status: error.status, code: 3, message: "Content-Type \(error.message)")
        }
        let type = given?.split(separator: ";").first.map { $0.filter { $0 != " " }.lowercased() } ?? ""
        switch type {
        case "application/x-protobuf": return .protobuf
        case "application/json": return .json
        default:
            throw Refusal(
                status: 415, code: 3, message: "Content-Type must be application/x-protobuf or application/json, not '\(type.prefix(60))'")
        }
    }

    private func read(_ request: HTTPRequest, _ signal: OTLP.Signal, _ encoding: Encoding) async throws(Refusal) -> OTLPIngest.Outcome {
        let packed: Bool
        do throws(APIError) { packed = try Engine.isPacked(request) } catch {
            throw Refusal(status: error.status, code: 3, message: error.message)
        }
        let otlp = otlp, body = request.body
        return try await reader.read(bytes: body.count, packed: packed) { (document) throws(Refusal) in
            let unpacked: [UInt8]
            do throws(APIError) { unpacked = packed ? try Engine.unpack(body) : body } catch {
                throw Refusal(status: error.status, code: error.status == 413 ? 8 : 3, message: error.message)
            }
            do throws(ProtobufFailure) { return try Engine.sort(unpacked, signal, encoding == .json ? document : nil, otlp) } catch {
                if error.isTooMuch { throw Refusal(status: 413, code: 8, message: "the request \(error.description)") }
                throw Refusal(status: 400, code: 3, message: "the body is no export request for \(signal.rawValue): \(error.description)")
            }
        }
    }

    /// `document`: the body is JSON, and this parses it.
    private static func sort(_ body: [UInt8], _ signal: OTLP.Signal, _ document: JSONDocument?, _ ingest: OTLPIngest)
        throws(ProtobufFailure) -> OTLPIngest.Outcome
    {
        guard let document else {
            let result: Result<OTLPIngest.Outcome, ProtobufFailure> = body.withUnsafeBytes { bytes in
                do throws(ProtobufFailure) { return .success(try ingest.read(bytes, signal, now: .now)) } catch { return .failure(error) }
            }
            return try result.get()
        }
        do { return try document.parse(body) { try ingest.read($0, signal, now: .now) } } catch let failure as ProtobufFailure {
            throw failure
        } catch {
            throw ProtobufFailure("the body is not valid JSON: \(error)")
        }
    }

    // MARK: packed bodies, in all ways in

    /// Whether the body is gzip; any other coding is refused with 415.
    static func isPacked(_ request: HTTPRequest) throws(APIError) -> Bool {
        switch try request.single("content-encoding")?.lowercased() {
        case nil, "", "identity"?: return false
        case "gzip"?, "x-gzip"?: return true
        case let other?:
            throw APIError(
                415, "unsupported_content_encoding", "Content-Encoding must be gzip or none, not '\(other.prefix(60))'",
                field: "Content-Encoding")
        }
    }

    static func unpack(_ body: [UInt8]) throws(APIError) -> [UInt8] {
        do throws(Gzip.Failure) { return try Gzip.unpack(body, limit: Engine.unpackedLimit) } catch {
            if case .tooLarge = error { throw APIError(413, "body_too_large", error.description) }
            throw APIError(400, "invalid_gzip", error.description)
        }
    }
}
