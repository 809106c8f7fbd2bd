// Rendered by: muster load --render k6 (scenario mixed). Run with: k6 run FILE
// k6 counts http_req_duration from sending, not from when a request was due: it is not corrected for coordinated omission.
// n counts from 0 in each phase.
import http from 'k6/http';
import exec from 'k6/execution';
import { sleep } from 'k6';

export const options = {
  discardResponseBodies: true,
  maxRedirects: 0,
  scenarios: {
    // 10 users for 5s
    phase_1: {
      executor: 'constant-vus',
      startTime: '0s',
      gracefulStop: '1500ms',
      vus: 10,
      duration: '5s',
      env: { PHASE: '1' },
    },
    // ramp 0..100 users for 10s
    phase_2: {
      executor: 'ramping-vus',
      startTime: '5s',
      gracefulStop: '1500ms',
      gracefulRampDown: '1500ms',
      startVUs: 0,
      stages: [
        { target: 100, duration: '10s' },
      ],
      env: { PHASE: '2' },
    },
    // 3 steps 10..30 users for 9s
    phase_3: {
      executor: 'ramping-vus',
      startTime: '15s',
      gracefulStop: '1500ms',
      gracefulRampDown: '1500ms',
      startVUs: 10,
      stages: [
        { target: 10, duration: '3s' },
        { target: 20, duration: '0s' },
        { target: 20, duration: '3s' },
        { target: 30, duration: '0s' },
        { target: 30, duration: '3s' },
      ],
      env: { PHASE: '3' },
    },
    // 200/s for 30s
    phase_4: {
      executor: 'constant-arrival-rate',
      startTime: '24s',
      gracefulStop: '1500ms',
      timeUnit: '1s',
      preAllocatedVUs: 40,
      maxVUs: 40,
      rate: 200,
      duration: '30s',
      env: { PHASE: '4' },
    },
    // 30/min for 1m
    phase_5: {
      executor: 'constant-arrival-rate',
      startTime: '54s',
      gracefulStop: '1500ms',
      timeUnit: '1m',
      preAllocatedVUs: 40,
      maxVUs: 40,
      rate: 30,
      duration: '60s',
      env: { PHASE: '5' },
    },
    // ramp 10/s..100/s for 2.5s
    phase_6: {
      executor: 'ramping-arrival-rate',
      startTime: '114s',
      gracefulStop: '1500ms',
      timeUnit: '1s',
      preAllocatedVUs: 40,
      maxVUs: 40,
      startRate: 10,
      stages: [
        { target: 100, duration: '2500ms' },
      ],
      env: { PHASE: '6' },
    },
    // 3 steps 10/s..30/s for 6s
    phase_7: {
      executor: 'ramping-arrival-rate',
      startTime: '116500ms',
      gracefulStop: '1500ms',
      timeUnit: '1s',
      preAllocatedVUs: 40,
      maxVUs: 40,
      startRate: 10,
      stages: [
        { target: 10, duration: '2s' },
        { target: 20, duration: '0s' },
        { target: 20, duration: '2s' },
        { target: 30, duration: '0s' },
        { target: 30, duration: '2s' },
      ],
      env: { PHASE: '7' },
    },
    // spike 2000/s for 5s
    phase_8: {
      executor: 'constant-arrival-rate',
      startTime: '122500ms',
      gracefulStop: '1500ms',
      timeUnit: '1s',
      preAllocatedVUs: 40,
      maxVUs: 40,
      rate: 2000,
      duration: '5s',
      env: { PHASE: '8' },
    },
  },
  thresholds: {
    http_req_duration: ["p(95)<150", "p(99.9)<=1500", "max<3000", "avg<100"],
    http_req_failed: ["rate<0.001"],
    http_reqs: ["rate>=50"],
  },
};

function uuid() {
  return 'xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx'.replace(/[xy]/g, (c) => {
    const r = Math.floor(Math.random() * 16);
    return (c === 'x' ? r : (r & 3) | 8).toString(16);
  });
}

const target = "http://127.0.0.1:8080";
const requests = [
  {
    weight: 3,
    method: "GET",
    url: (n, id) => target + "/api/correlations?limit=10&q='\"",
    body: () => null,
    params: {
      headers: {},
      timeout: '1500ms',
      tags: { name: "GET /api/correlations?limit=10&q='\"" },
    },
  },
  {
    weight: 1,
    method: "POST",
    url: (n, id) => target + "/api/logs/" + n,
    body: (n, id) => "{\"id\":\"" + id + "\",\"at\":\"" + new Date().toISOString() + "\",\"n\":" + n + ",\"line\":\"one\u2028two\\nthree `${x}`\"}",
    params: {
      headers: { "Content-Type": "application/json", "X-Text": "it's a \"text\" \\ \u003c/script>" },
      timeout: '1500ms',
      tags: { name: "POST /api/logs/{{n}}" },
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

// Seconds between an answer and the user's next request, by phase.
const think = {
  1: [0.5, 1.5],
  2: [1, 1],
  3: [0, 0],
};

export default function () {
  const n = exec.scenario.iterationInTest;
  const id = uuid();
  const request = choose();
  http.request(request.method, request.url(n, id), request.body(n, id), request.params);
  const [least, most] = think[__ENV.PHASE] || [0, 0];
  if (most > 0) sleep(least + Math.random() * (most - least));
}
