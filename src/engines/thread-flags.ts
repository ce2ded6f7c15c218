const WITH_VALUE = new Set(['--conditions', '-C'])
const KEPT = /^(?:--conditions=.+|--(?:no-)?(?:experimental-)?strip-types|--(?:no-)?experimental-transform-types)$/

/**
 * The flags of the program that its threads start with: those that say how modules are found and read. The others
 * concern the program's own code, and some would keep a thread from running: `--input-type` misreads its file, and
 * `--inspect-brk` has it wait for a debugger.
 */
export function threadFlags(programFlags: readonly string[]): string[] {
  return programFlags.flatMap((flag, place) => {
    if (KEPT.test(flag)) return [flag]
    const value = programFlags[place + 1]
    return WITH_VALUE.has(flag) && value !== undefined ? [flag, value] : []
  })
}
