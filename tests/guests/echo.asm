; A guest in one boot sector, on COM1 (115200 8N1, polled; the interrupt only ends hlt).
; It says "ready" once it is, a quarter of a second after its start at the earliest: until virsh has
; returned, libvirtd opens nobody its console, and QEMU drops what nobody reads.
;   0x05   sends 1 MiB of noise: the top bytes of x = x * 1664525 + 1013904223 (mod 2^32), x = 1
;   0x06   sends 0x20..0x7e over and over until a byte comes, which is dropped, then how many bytes
;          that were in 8 hexadecimal digits, and one 0x04; another 0x06 begins anew with both
;   0x07   is deaf: sends 0x20..0x7f over and over and reads nothing, until an NMI
;   0x08   hangs: neither sends nor reads, until an NMI
;   0x0e   panics: tells the pvpanic device, if the guest has one
;   else   is sent back
        bits 16
        org 0x7c00

COM1    equ 0x3f8
LSR     equ COM1 + 5            ; bit 0: a byte has come; bit 5: the transmit FIFO is empty
FIFO    equ 16
PVPANIC equ 0x505
NOISE   equ 1 << 20
TICKS   equ 0x46c               ; the BIOS counts 18 a second
START   equ 5

start:  jmp 0:.flat
.flat:  cli
        cld
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, start
        mov word [(8 + 4) * 4], irq4
        mov word [(8 + 4) * 4 + 2], ax
        mov word [2 * 4], nmi
        mov word [2 * 4 + 2], ax

        sti
        mov ax, [TICKS]
.wait:  hlt
        mov bx, [TICKS]
        sub bx, ax
        cmp bx, START
        jb .wait
        cli

        mov si, setup
.next:  lodsw                   ; low byte: register, high byte: value
        mov dx, COM1
        add dl, al
        mov al, ah
        out dx, al
        cmp si, setup_end
        jb .next
        mov al, ~(1 << 4) & 0xff
        out 0x21, al            ; of all interrupts only COM1's
        mov al, 0xff
        out 0xa1, al

        mov si, ready
.say:   lodsb
        call send
        cmp si, ready_end
        jb .say

idle:   cli
        call poll
        jnz command
        sti                     ; takes effect after hlt: a byte that comes now still wakes us
        hlt
        jmp idle

command:
        call receive
        cmp al, 5
        je noise
        cmp al, 6
        je flood
        cmp al, 7
        je deaf
        cmp al, 8
        je hang
        cmp al, 14
        je panic
        call send
        jmp idle

noise:  mov ebx, 1
        mov edi, NOISE / FIFO
.burst: call drained
        mov cx, FIFO
        mov dx, COM1
.byte:  imul ebx, ebx, 1664525
        add ebx, 1013904223
        mov eax, ebx
        shr eax, 24
        out dx, al
        loop .byte
        dec edi
        jnz .burst
        jmp idle

flood:  mov bl, 0x20
        xor edi, edi
.burst: call poll
        jnz .stop
        call drained
        mov cx, FIFO
        add edi, FIFO
        mov dx, COM1
.byte:  mov al, bl
        out dx, al
        inc bl
        cmp bl, 0x7f
        jb .same
        mov bl, 0x20
.same:  loop .byte
        jmp .burst
.stop:  call receive
        cmp al, 6
        je flood
        mov cx, 8
.digit: rol edi, 4
        mov ax, di
        and al, 0x0f
        cmp al, 10              ; the shortest way to a hexadecimal digit
        sbb al, 0x69
        das
        call send
        loop .digit
        mov al, 4
        call send
        jmp idle

deaf:   mov bl, 0x20
        mov byte [woken], 0
.next:  mov al, bl
        call send
        inc bl
        and bl, 0x7f
        jnz .same
        mov bl, 0x20
.same:  cmp byte [woken], 0
        je .next
        jmp idle

hang:   mov byte [woken], 0
.again: hlt                     ; interrupts are off: only an NMI gets through
        cmp byte [woken], 0
        je .again
        jmp idle

panic:  mov dx, PVPANIC
        mov al, 1
        out dx, al
        jmp idle

poll:   mov dx, LSR             ; zero flag clear: a byte has come
        in al, dx
        test al, 1
        ret

receive:
        mov dx, COM1
        in al, dx
        ret

send:   push ax
        call drained
        pop ax
        mov dx, COM1
        out dx, al
        ret

drained:
        mov dx, LSR
.wait:  in al, dx
        test al, 0x20
        jz .wait
        ret

irq4:   push ax
        mov al, 0x20
        out 0x20, al
        pop ax
        iret

nmi:    mov byte [cs:woken], 1
        iret

woken:  db 0

setup:  db 3, 0x80              ; divisor 1
        db 0, 1
        db 1, 0
        db 3, 3                 ; 8N1
        db 2, 7                 ; FIFOs on and empty, wake at one byte
        db 4, 0x0b              ; DTR, RTS, and OUT2, which lets the interrupt through
        db 1, 1                 ; interrupt on a byte
setup_end:

ready:  db "ready", 13, 10
ready_end:

        times 510 - ($ - $$) db 0
        dw 0xaa55
