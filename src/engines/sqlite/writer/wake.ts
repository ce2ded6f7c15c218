import { closeSync, constants, type FSWatcher, openSync, watch, writeSync } from 'node:fs'

/**
 * Tells the other processes on the same file that there is something to do, within a millisecond. After a commit that
 * others may be waiting for, a byte is written to the file `<database>-wake`, which every process watches. The file
 * holds nothing; where it cannot be written or watched, a slower look at the database itself is the safety net.
 */
export class Wake {
  readonly #descriptor: number | undefined
  readonly #watcher: FSWatcher | undefined

  /** `file`: the database, without links on the way to it; undefined for one in memory. */
  constructor(file: string | undefined, onWake: () => void) {
    if (file === undefined) return
    try {
      this.#descriptor = openWakeFile(`${file}-wake`)
      this.#watcher = watch(`${file}-wake`, { persistent: false }, onWake)
      this.#watcher.on('error', () => this.#watcher?.close())
    } catch {
      // The safety net does it.
    }
  }

  others(): void {
    if (this.#descriptor === undefined) return
    try {
      // At a fixed place, and not appended, so that the file does not grow.
      writeSync(this.#descriptor, '.', 0)
    } catch {
      // A full disk, for example. The safety net does it.
    }
  }

  close(): void {
    this.#watcher?.close()
    if (this.#descriptor !== undefined) closeSync(this.#descriptor)
  }
}

// Not 'a+', which would append on Linux whatever the position; not 'w', which would truncate under the other processes.
function openWakeFile(path: string): number {
  return openSync(path, constants.O_RDWR | constants.O_CREAT, 0o666)
}
