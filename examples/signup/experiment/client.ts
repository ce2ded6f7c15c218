import { Agent, request } from 'node:http'

/** What became of one sign-up: `status` is 0 when there was no answer. */
export interface Outcome {
  readonly email: string
  readonly status: number
  readonly latencyMs: number
}

export type Mode = 'sync' | 'async'

const agent = new Agent({ keepAlive: true })

/** Signs one user up over a kept-alive connection. `intendedAt` is when the request should have left. */
export async function signUp(port: number, mode: Mode, email: string, intendedAt: number): Promise<Outcome> {
  const status = await post(port, `/signup?mode=${mode}`, JSON.stringify({ email, name: 'Ada Lovelace' }))
  return { email, status, latencyMs: performance.now() - intendedAt }
}

function post(port: number, path: string, body: string): Promise<number> {
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }
  return new Promise((resolve) => {
    const call = request({ agent, host: '127.0.0.1', port, path, method: 'POST', headers }, (response) => {
      response.resume()
      response.once('end', () => resolve(response.statusCode ?? 0))
    })
    call.once('error', () => resolve(0))
    call.end(body)
  })
}

export function closeClient(): void {
  agent.destroy()
}
