// Rendered by: muster load --render k6 (scenario plain). Run with: k6 run FILE
// k6 counts http_req_duration from sending, not from when a request was due: it is not corrected for coordinated omission.
// n counts from 0 in each phase.
import http from 'k6/http';
import exec from 'k6/execution';

export const options = {
  discardResponseBodies: true,
  maxRedirects: 0,
  scenarios: {
    // 100/s for 3s
    phase_1: {
      executor: 'constant-arrival-rate',
      startTime: '0s',
      gracefulStop: '10s',
      timeUnit: '1s',
      preAllocatedVUs: 100,
      maxVUs: 1000,
      rate: 100,
      duration: '3s',
      env: { PHASE: '1' },
    },
  },
};

const target = "http://127.0.0.1:8080";
const requests = [
  {
    weight: 1,
    method: "GET",
    url: (n, id) => target + "/",
    body: () => null,
    params: {
      headers: {},
      timeout: '10s',
      tags: { name: "GET /" },
    },
  },
];
const weights = requests.reduce((sum, request) => sum + request.weight, 0);

function choose() {
  let left = Math.random() * weights;
  for (const request of requests) {
    left -= request.weight;
    if (left < 0) return request;
  }
  return requests[requests.length - 1];
}

export default function () {
  const n = exec.scenario.iterationInTest;
  const id = '';
  const request = choose();
  http.request(request.method, request.url(n, id), request.body(n, id), request.params);
}
