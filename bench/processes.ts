/**
 * The processes of one run of a scenario. With an engine that several processes can share, every actor gets its own;
 * otherwise all live in one. `peakMb` is the highest memory of any of them so far.
 *
 * A process that ends before it was asked to makes every call to it reject.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import type { ActorKind, ActorOf, Remote, Request, Response } from './actors/index.ts'

/** `peakMb`: the most memory that its process had when it last answered. */
export type RemoteActor<Kind extends ActorKind> = Remote<ActorOf<Kind>> & { peakMb(): number }

const PROGRAM = new URL('./child.ts', import.meta.url)

export class Processes {
  readonly #separate: boolean
  readonly #channels: Channel[] = []
  #actors = 0

  constructor(separate: boolean) {
    this.#separate = separate
  }

  /** An actor of its own, in a process of its own where that is possible, with these options for Node.js. */
  actor<Kind extends ActorKind>(kind: Kind, nodeOptions: readonly string[] = []): RemoteActor<Kind> {
    const channel = this.#channelForNext(nodeOptions)
    const actor = this.#actors++
    return new Proxy({} as RemoteActor<Kind>, {
      get: (_target, name) => {
        // What has a method `then` cannot be returned from an async function.
        if (name === 'then') return undefined
        if (name === 'peakMb') return () => channel.peakMb
        return channel.caller({ actor, kind, method: String(name) })
      },
    })
  }

  async stop(): Promise<void> {
    await Promise.all(this.#channels.map((channel) => channel.stop()))
  }

  kill(): void {
    for (const channel of this.#channels) channel.kill()
  }

  #channelForNext(nodeOptions: readonly string[]): Channel {
    const [first] = this.#channels
    if (first !== undefined && !this.#separate) return first
    const channel = new Channel(nodeOptions)
    this.#channels.push(channel)
    return channel
  }
}

class Channel {
  peakMb = 0
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>()
  #calls = 0

  constructor(nodeOptions: readonly string[]) {
    this.#child = fork(PROGRAM, { execArgv: [...process.execArgv, ...nodeOptions] })
    this.#child.on('message', (response: Response) => this.#settle(response))
    this.#child.on('exit', (code, signal) =>
      this.#fail(`A process of the benchmark ended: ${signal ?? `code ${code}`}.`),
    )
  }

  caller(target: Omit<Request, 'call' | 'parameters'>): (...parameters: readonly unknown[]) => Promise<unknown> {
    return (...parameters) => {
      const call = this.#calls++
      const waiting = Promise.withResolvers<unknown>()
      this.#waiting.set(call, waiting)
      this.#child.send({ call, ...target, parameters } satisfies Request)
      return waiting.promise
    }
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exited = once(this.#child, 'exit')
    this.#child.disconnect()
    await exited
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }

  #settle(response: Response): void {
    const waiting = this.#waiting.get(response.call)
    this.#waiting.delete(response.call)
    this.peakMb = Math.max(this.peakMb, response.peakMb)
    if ('problem' in response) waiting?.reject(new Error(response.problem))
    else waiting?.resolve(response.value)
  }

  #fail(problem: string): void {
    for (const waiting of this.#waiting.values()) waiting.reject(new Error(problem))
    this.#waiting.clear()
  }
}
