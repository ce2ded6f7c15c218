/**
 * Loaded before the command: kills the process with SIGKILL when it is about to send for the nth time (POSTHORN_SENDS)
 * something to the server, or right after it has. Without a number it tells how often something was sent.
 */
import { writeSync } from 'node:fs'
import { Socket } from 'node:net'

const STDERR = 2
const limit = Number(process.env.POSTHORN_SENDS ?? Number.POSITIVE_INFINITY)
const isAfter = process.env.POSTHORN_SENDS_AFTER === 'yes'
const write = Socket.prototype.write as (...values: unknown[]) => boolean
let sends = 0

Socket.prototype.write = function counted(this: Socket, ...values: unknown[]): boolean {
  if (this.remotePort === undefined) return write.apply(this, values)
  const isLast = ++sends === limit
  if (isLast && !isAfter) process.kill(process.pid, 'SIGKILL')
  const written = write.apply(this, values)
  if (isLast) process.kill(process.pid, 'SIGKILL')
  return written
}

process.on('exit', () => {
  if (limit === Number.POSITIVE_INFINITY) writeSync(STDERR, `sent ${sends} times\n`)
})
