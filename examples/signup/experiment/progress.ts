import { Presets, SingleBar } from 'cli-progress'

/** Tells what the experiment is doing: a bar on a terminal, and nothing but whole lines elsewhere. */
export interface Progress {
  step(): void
  stop(): void
}

const silent: Progress = { step() {}, stop() {} }

/** Announces a phase of `total` steps. */
export function startProgress(title: string, total: number): Progress {
  console.log(title)
  if (!process.stdout.isTTY || total === 0) return silent
  const format = '   {bar} {value}/{total}'
  const bar = new SingleBar({ format, hideCursor: true, clearOnComplete: true, fps: 5 }, Presets.shades_classic)
  bar.start(total, 0)
  return { step: () => bar.increment(), stop: () => bar.stop() }
}
