/** The entry point of the thread that checks the file: says one report and ends. */
import { parentPort, workerData } from 'node:worker_threads'
import { Connection } from '../store/file/connection.ts'
import { Log } from '../store/log/log.ts'
import { Inspection } from '../store/operators/inspection.ts'
import { toWire } from '../wire-error.ts'
import type { IntegrityReport } from './checks.ts'

function check(file: string): readonly string[] {
  const connection = Connection.openToRead(file)
  try {
    return connection.read(() => new Inspection(connection, new Log(connection)).problems())
  } finally {
    connection.close()
  }
}

function report(file: string): IntegrityReport {
  try {
    return { problems: check(file) }
  } catch (error) {
    return { failed: toWire(error) }
  }
}

parentPort!.postMessage(report(workerData as string))
