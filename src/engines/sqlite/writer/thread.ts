/** The entry point of the writer thread: commands in, turns out. */
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { type Clock, systemClock } from '../../../environment/index.ts'
import type { Command, Opening, ThreadData, Turn } from '../protocol.ts'
import { toWire } from '../wire-error.ts'
import { Writer } from './writer.ts'

const data = workerData as ThreadData
const port = parentPort as MessagePort

let heldTimeMs = data.heldTimeMs
const clock: Clock =
  heldTimeMs === undefined
    ? systemClock
    : { real: false, now: () => heldTimeMs ?? 0, elapsedMs: () => heldTimeMs ?? 0, setTimer: () => ({ cancel() {} }) }

function say(turn: Turn): void {
  port.postMessage(turn)
  if (turn.ended) port.close()
}

// Takes everything that has arrived, not one message an event: the more there is, the larger the commit.
function takeTurn(writer: Writer, first?: Command): void {
  const commands = first ? [first] : []
  for (let next = receiveMessageOnPort(port); next; next = receiveMessageOnPort(port)) commands.push(next.message)
  for (const { nowMs } of commands) heldTimeMs = nowMs ?? heldTimeMs
  writer.turn(commands)
}

try {
  const writer: Writer = new Writer(data, clock, say, () => takeTurn(writer))
  port.on('message', (command: Command) => {
    takeTurn(writer, command)
    if (command.kind === 'close') port.close()
  })
  const { identity } = writer
  port.postMessage({ opened: true, ...(identity !== undefined && { identity }) } satisfies Opening)
} catch (error) {
  port.postMessage({ failed: toWire(error) } satisfies Opening)
  port.close()
}
